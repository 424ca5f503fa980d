//! Frames of [`proto_core::stream::exec`] off a stream.

use bytes::{Bytes, BytesMut};
use proto_core::stream::exec::{HEAD_LEN, Head};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes read at once.
const CHUNK: usize = 64 << 10;
/// Room below which a new chunk is taken.
const LEAST: usize = 8 << 10;

/// Reads frames, one at a time.
#[derive(Debug)]
pub struct Frames<R> {
    from: R,
    read: BytesMut,
}

impl<R: AsyncRead + Unpin> Frames<R> {
    /// The frames of this stream.
    pub fn new(from: R) -> Self {
        Self { from, read: BytesMut::new() }
    }

    /// The next frame's kind and what it holds; none at the stream's end. May be given up and called again at any time.
    ///
    /// # Errors
    /// If the stream breaks, ends inside a frame, or holds something else.
    pub async fn next(&mut self) -> io::Result<Option<(u8, Bytes)>> {
        loop {
            let wanted = match self.head()? {
                Some(head) if self.read.len() >= HEAD_LEN + head.length => {
                    let _ = self.read.split_to(HEAD_LEN);
                    return Ok(Some((head.kind, self.read.split_to(head.length).freeze())));
                }
                Some(head) => HEAD_LEN + head.length - self.read.len(),
                None => HEAD_LEN,
            };
            if self.read.capacity() - self.read.len() < wanted.max(LEAST) {
                self.read.reserve(wanted.max(CHUNK));
            }
            if self.from.read_buf(&mut self.read).await? == 0 {
                return if self.read.is_empty() {
                    Ok(None)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
        }
    }

    fn head(&self) -> io::Result<Option<Head>> {
        Head::decode(&self.read).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto_core::stream::exec::{Ask, FRAME_MAX};
    use tokio::io::AsyncWriteExt;

    #[tokio::test]
    async fn frames_come_whole_however_they_are_cut() {
        let long = vec![7; FRAME_MAX];
        let sent: Vec<u8> = [Ask::Input(b"one"), Ask::InputEnd, Ask::Input(&long), Ask::Signal("HUP")]
            .iter()
            .flat_map(Ask::encode)
            .collect();
        for cut in [1, 4, 5, 6, 13, 4_096, sent.len()] {
            let (mut there, here) = tokio::io::duplex(64);
            let pieces = sent.clone();
            tokio::spawn(async move {
                for piece in pieces.chunks(cut) {
                    there.write_all(piece).await.unwrap();
                }
            });
            let mut frames = Frames::new(here);
            let mut came = Vec::new();
            while let Some((kind, held)) = frames.next().await.unwrap() {
                came.extend(Ask::parse(kind, &held).unwrap().encode());
            }
            assert!(came == sent, "cut to {cut}");
        }
    }

    #[tokio::test]
    async fn half_a_frame_is_an_error_and_so_is_one_too_long() {
        let half = &Ask::Input(b"one").encode()[..6];
        let error = Frames::new(half).next().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        let error = Frames::new(&[3, 255, 0, 0, 0][..]).next().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
