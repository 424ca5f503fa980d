//! Files by SFTP, version 3 of the protocol with OpenSSH's extensions.
//!
//! The names of files are bytes here as they are on the disk: in the library at hand they are text, and a name that is
//! none could not be listed. Each visitor's requests are served by a thread of their own, in their order, since the
//! system has no other way to wait for a disk.

mod files;
mod listing;
mod wire;

use crate::services::program::inbox::Inbox;
use bytes::{Buf, Bytes, BytesMut};
use files::Files;
use russh::ChannelWriteHalf;
use russh::server::Msg;
use std::path::PathBuf;
use tokio::sync::mpsc;

/// Requests and answers that may wait between the connection and the disk.
const WAITING: usize = 16;

/// Serves requests until there are no more, or one that is none.
pub(super) async fn serve(inbox: &Inbox, outgoing: &ChannelWriteHalf<Msg>, home: PathBuf) {
    let (ask, mut asked) = mpsc::channel::<Bytes>(WAITING);
    let (answer, mut answered) = mpsc::channel::<Vec<u8>>(WAITING);
    let disk = tokio::task::spawn_blocking(move || {
        let mut files = Files::new(home);
        while let Some(request) = asked.blocking_recv() {
            if answer.blocking_send(files.answer(&request)).is_err() {
                break;
            }
        }
    });
    let requests = async {
        take_requests(inbox, &ask).await;
        drop(ask);
    };
    let answers = async {
        while let Some(bytes) = answered.recv().await {
            if outgoing.data_bytes(bytes).await.is_err() {
                break;
            }
        }
    };
    tokio::join!(requests, answers);
    let _ = disk.await;
}

/// Cuts what arrives into requests: a length (u32), and that many bytes.
async fn take_requests(inbox: &Inbox, ask: &mpsc::Sender<Bytes>) {
    let mut arrived = BytesMut::new();
    while let Some(piece) = inbox.next().await {
        arrived.extend_from_slice(&piece);
        while let Some(length) = arrived.first_chunk::<4>() {
            let length = u32::from_be_bytes(*length) as usize;
            if length > wire::PACKET_MAX {
                tracing::debug!(length, "a request of SFTP is too long");
                return;
            }
            if arrived.len() < 4 + length {
                arrived.reserve(4 + length - arrived.len());
                break;
            }
            arrived.advance(4);
            if ask.send(arrived.split_to(length).freeze()).await.is_err() {
                return;
            }
        }
    }
}
