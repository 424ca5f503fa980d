//! What a visitor asks for on a connection, and the answers.

use super::Visit;
use super::carry::join;
use super::forward::{Listeners, Opening};
use super::session::Session;
use crate::services::program::environment::{Asked, Place};
use crate::services::program::inbox::Throttle;
use crate::services::program::keys::Keys;
use crate::services::program::process::{Start, What};
use crate::services::program::terminal::{Size, Wanted};
use russh::keys::Certificate;
use russh::server::{
    Auth, ChannelOpenHandle, Handle, Handler, Msg, PublicKeyOffer, Response, Session as Connection,
    VerifiedPublicKey,
};
use russh::{Channel, ChannelId, ChannelOpenFailure, Pty};
use std::collections::HashMap;
use std::net::Ipv6Addr;
use std::sync::Arc;
use tokio::sync::{Semaphore, oneshot};

/// Sessions that one connection may have at once.
const SESSIONS: usize = 1_024;

type Result<T = ()> = std::result::Result<T, russh::Error>;

/// A visitor on one connection.
pub(super) struct Visitor {
    visit: Visit,
    place: Place,
    throttle: Throttle,
    room: Arc<Semaphore>,
    listeners: Listeners,
    /// The sessions whose program is not started yet. Later on a session itself reads what is asked of it.
    sessions: HashMap<ChannelId, Prepared>,
}

/// What was asked for before a session's program is started.
struct Prepared {
    start: oneshot::Sender<Start>,
    asked: Asked,
    terminal: Option<Wanted>,
    keys: Option<Keys>,
}

impl Visitor {
    pub(super) fn new(visit: Visit, agent: Ipv6Addr) -> Self {
        let visitor = visit.peer.key().inner_address();
        let place = Place { workspace: visit.workspace.clone(), visitor, agent };
        Self {
            visit,
            place,
            throttle: Throttle::default(),
            room: Arc::new(Semaphore::new(SESSIONS)),
            listeners: Listeners::default(),
            sessions: HashMap::new(),
        }
    }

    /// The way back to the visitor, for connections that begin here.
    fn back(&self, connection: &Connection) -> (Handle, Throttle) {
        (connection.handle(), self.throttle.clone())
    }

    /// Starts a session's program, once.
    fn start(&mut self, channel: ChannelId, what: What, connection: &mut Connection) -> Result {
        let Some(Prepared { start, asked, terminal, keys }) = self.sessions.remove(&channel) else {
            return connection.channel_failure(channel);
        };
        let shell = matches!(what, What::Shell);
        tracing::debug!(peer = %self.visit.peer.id(), shell, "starting a program for a visitor");
        // The answer goes before anything that the program says.
        connection.channel_success(channel)?;
        let _ = start.send(Start { what, asked, terminal, keys, place: self.place.clone() });
        Ok(())
    }
}

fn answer(good: bool, channel: ChannelId, connection: &mut Connection) -> Result {
    if good { connection.channel_success(channel) } else { connection.channel_failure(channel) }
}

impl Handler for Visitor {
    type Error = russh::Error;

    async fn auth_none(&mut self, _user: &str) -> Result<Auth> {
        Ok(Auth::Accept)
    }

    async fn auth_password(&mut self, _user: &str, _password: &str) -> Result<Auth> {
        Ok(Auth::Accept)
    }

    async fn auth_publickey_offered(&mut self, _user: &str, _offer: PublicKeyOffer<'_>) -> Result<Auth> {
        Ok(Auth::Accept)
    }

    async fn auth_publickey(&mut self, _user: &str, _key: VerifiedPublicKey<'_>) -> Result<Auth> {
        Ok(Auth::Accept)
    }

    async fn auth_openssh_certificate(&mut self, _user: &str, _certificate: &Certificate) -> Result<Auth> {
        Ok(Auth::Accept)
    }

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        _user: &str,
        _submethods: &str,
        _response: Option<Response<'a>>,
    ) -> Result<Auth> {
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        connection: &mut Connection,
    ) -> Result {
        let Ok(place) = self.room.clone().try_acquire_owned() else {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        };
        let (start, started) = oneshot::channel();
        let prepared = Prepared { start, asked: Asked::default(), terminal: None, keys: None };
        self.sessions.insert(channel.id(), prepared);
        let session = Session::new(channel, connection.handle(), self.throttle.clone());
        tokio::spawn(async move {
            session.serve(started).await;
            drop(place);
        });
        reply.accept().await;
        Ok(())
    }

    async fn channel_close(&mut self, channel: ChannelId, _connection: &mut Connection) -> Result {
        self.sessions.remove(&channel);
        Ok(())
    }

    fn adjust_window(&mut self, _channel: ChannelId, _current: u32) -> u32 {
        self.throttle.window(super::WINDOW)
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        term: &str,
        columns: u32,
        rows: u32,
        width: u32,
        height: u32,
        modes: &[(Pty, u32)],
        connection: &mut Connection,
    ) -> Result {
        let prepared = self.sessions.get_mut(&channel);
        let good = prepared.is_some();
        if let Some(prepared) = prepared {
            let size = Size { columns, rows, width, height };
            prepared.terminal = Some(Wanted { kind: term.to_owned(), size, modes: modes.to_vec() });
        }
        answer(good, channel, connection)
    }

    async fn window_change_request(
        &mut self,
        channel: ChannelId,
        columns: u32,
        rows: u32,
        width: u32,
        height: u32,
        _connection: &mut Connection,
    ) -> Result {
        if let Some(terminal) = self.sessions.get_mut(&channel).and_then(|p| p.terminal.as_mut()) {
            terminal.size = Size { columns, rows, width, height };
        }
        Ok(())
    }

    async fn env_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        value: &str,
        connection: &mut Connection,
    ) -> Result {
        let good = self.sessions.get_mut(&channel).is_some_and(|prepared| prepared.asked.set(name, value));
        answer(good, channel, connection)
    }

    async fn shell_request(&mut self, channel: ChannelId, connection: &mut Connection) -> Result {
        self.start(channel, What::Shell, connection)
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        command: &[u8],
        connection: &mut Connection,
    ) -> Result {
        self.start(channel, What::Command(command.to_vec()), connection)
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        connection: &mut Connection,
    ) -> Result {
        match name {
            "sftp" => self.start(channel, What::Files, connection),
            _ => connection.channel_failure(channel),
        }
    }

    async fn agent_request(&mut self, channel: ChannelId, connection: &mut Connection) -> Result<bool> {
        let back = self.back(connection);
        let Some(prepared) = self.sessions.get_mut(&channel) else { return Ok(false) };
        let (handle, throttle) = back;
        let serve = move |connection| {
            let (handle, throttle) = (handle.clone(), throttle.clone());
            tokio::spawn(async move {
                if let Ok(channel) = handle.channel_open_agent().await {
                    join(channel, connection, throttle).await;
                }
            });
        };
        match Keys::forward(serve) {
            Ok(keys) => prepared.keys = Some(keys),
            Err(error) => tracing::debug!(%error, "a visitor's keys cannot be reached from here"),
        }
        Ok(prepared.keys.is_some())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _from: &str,
        _from_port: u32,
        reply: ChannelOpenHandle,
        _connection: &mut Connection,
    ) -> Result {
        Opening { channel, reply, throttle: self.throttle.clone() }.lead_to_port(host.to_owned(), port);
        Ok(())
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        channel: Channel<Msg>,
        path: &str,
        reply: ChannelOpenHandle,
        _connection: &mut Connection,
    ) -> Result {
        Opening { channel, reply, throttle: self.throttle.clone() }.lead_to_socket(path.to_owned());
        Ok(())
    }

    async fn tcpip_forward(
        &mut self,
        address: &str,
        port: &mut u32,
        connection: &mut Connection,
    ) -> Result<bool> {
        let back = self.back(connection);
        Ok(match self.listeners.add_port(address, *port, back).await {
            Ok(bound) => {
                *port = bound;
                true
            }
            Err(error) => {
                tracing::debug!(%error, address, port = *port, "a visitor's port cannot be listened on");
                false
            }
        })
    }

    async fn cancel_tcpip_forward(&mut self, address: &str, port: u32, _: &mut Connection) -> Result<bool> {
        Ok(self.listeners.remove_port(address, port))
    }

    async fn streamlocal_forward(&mut self, path: &str, connection: &mut Connection) -> Result<bool> {
        let back = self.back(connection);
        let added = self.listeners.add_socket(path, back);
        if let Err(error) = &added {
            tracing::debug!(%error, path, "a visitor's socket cannot be listened on");
        }
        Ok(added.is_ok())
    }

    async fn cancel_streamlocal_forward(&mut self, path: &str, _: &mut Connection) -> Result<bool> {
        Ok(self.listeners.remove_socket(path))
    }

    async fn x11_request(
        &mut self,
        channel: ChannelId,
        _single: bool,
        _protocol: &str,
        _cookie: &str,
        _screen: u32,
        connection: &mut Connection,
    ) -> Result {
        connection.channel_failure(channel)
    }
}
