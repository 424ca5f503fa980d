//! The router before the host: asked on the machine's behalf, where the network has a way to one.

use super::Driver;
use crate::portmap::PortMapper;
use crate::transport::Network;
use proto_core::machine::Input;
use proto_core::nat::portmap::{Offers, PortmapRequest, RouterWord};
use proto_core::node::NodeCommand;
use proto_core::time::Time;
use proto_core::wg::WgEngine;
use std::task::{Context, Poll};

/// The way to the router, once it was needed.
#[derive(Debug, Default)]
pub(super) struct Router {
    mapper: Option<PortMapper>,
    /// Words that come from nobody: that there is no router to ask.
    said: Vec<RouterWord>,
    /// Something was asked since the answers were last looked for.
    asked: bool,
}

impl Router {
    /// Whether nothing is left to be given back.
    pub(super) fn is_idle(&self) -> bool {
        !self.mapper.as_ref().is_some_and(PortMapper::is_releasing)
    }

    pub(super) fn request(&mut self, request: PortmapRequest, network: &impl Network) {
        if self.mapper.is_none() && matches!(request, PortmapRequest::Ask { .. }) {
            self.mapper = network.port_mapper();
        }
        self.asked = true;
        match &mut self.mapper {
            Some(mapper) => mapper.request(request),
            None if request == PortmapRequest::Release => {}
            None => self.said.extend([RouterWord::Offers(Offers::default(), true), RouterWord::Answer(None)]),
        }
    }

    /// Whether something was asked, so that the answer has to be waited for.
    pub(super) fn take_asked(&mut self) -> bool {
        std::mem::take(&mut self.asked)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Option<RouterWord> {
        if !self.said.is_empty() {
            return Some(self.said.remove(0));
        }
        match self.mapper.as_mut()?.poll(cx) {
            Poll::Ready(Some(word)) => Some(word),
            Poll::Ready(None) => {
                self.mapper = None;
                None
            }
            Poll::Pending => None,
        }
    }
}

impl<N: Network, W: WgEngine> Driver<N, W> {
    /// What the router has said.
    pub(super) fn hear_router(&mut self, cx: &mut Context<'_>, now: Time) -> bool {
        let Some(word) = self.router.poll(cx) else { return false };
        self.stack.handle(Input::Command(NodeCommand::Router(word)), now);
        true
    }
}
