//! The socket of an endpoint, and what comes to it: [`Server`].

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use dashmap::{DashMap, Entry};
use gobroke_core::{CloseReason, EndpointError, Gate};
use socket2::SockRef;
use tokio::net::UdpSocket;

use super::{
    Settings,
    cookie::{Baker, PROOF, Use},
    datagram::{
        ACCEPTED, CHALLENGE, CLOSE, COOKIE, ConnectionId, Datagram, Event, LARGEST, MAGIC, Nonce,
        PONG,
    },
    encoder::DatagramEncoder,
    inbox::Inbox,
    session,
};

/// What the system may keep for the endpoint between two reads, as far as it allows that.
const SOCKET_BUFFER: usize = 4 << 20;

/// How many datagrams are read before other tasks of the thread have their turn.
const BURST: usize = 64;

/// How long reading rests after an error, so that one that stays does not spin.
const REST: Duration = Duration::from_millis(5);

/// The socket, and who talks through it.
pub(super) struct Server {
    pub(super) gate: Gate,
    pub(super) socket: UdpSocket,
    pub(super) settings: Settings,
    pub(super) encoder: Arc<DatagramEncoder>,
    pub(super) baker: Baker,
    sessions: DashMap<ConnectionId, Arc<Peer>>,
    /// By what a session was opened with, so that a request that comes twice opens one.
    opened: DashMap<(SocketAddr, Nonce), ConnectionId>,
}

/// A session, from its first proven datagram on.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) id: ConnectionId,
    pub(super) nonce: Nonce,
    /// Where it was opened from.
    pub(super) origin: SocketAddr,
    pub(super) inbox: Inbox,
    /// Where it is now; none until it is admitted.
    address: std::sync::Mutex<Option<SocketAddr>>,
}

impl Peer {
    pub(super) fn address(&self) -> Option<SocketAddr> {
        *self.lock()
    }

    pub(super) fn set_address(&self, address: SocketAddr) {
        *self.lock() = Some(address);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<SocketAddr>> {
        self.address
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Server {
    pub(super) async fn bind(
        address: &str,
        gate: Gate,
        settings: Settings,
    ) -> Result<Arc<Self>, EndpointError> {
        let failed = |source| EndpointError::Bind {
            address: address.to_owned(),
            source,
        };
        let socket = UdpSocket::bind(address).await.map_err(failed)?;
        if let Err(error) = SockRef::from(&socket).set_recv_buffer_size(SOCKET_BUFFER) {
            tracing::debug!(%error, "the socket's buffer stays as it is");
        }
        gate.ready(Some(socket.local_addr().map_err(failed)?));
        Ok(Arc::new(Self {
            encoder: Arc::new(DatagramEncoder::new(Arc::clone(&settings.codec))),
            baker: Baker::new().map_err(failed)?,
            gate,
            socket,
            settings,
            sessions: DashMap::new(),
            opened: DashMap::new(),
        }))
    }

    /// Reads until the gate closes.
    pub(super) async fn run(self: Arc<Self>) {
        let mut buffer = vec![0; LARGEST + 1].into_boxed_slice();
        loop {
            let readable = tokio::select! {
                biased;
                () = self.gate.closing() => return,
                readable = self.socket.readable() => readable,
            };
            if let Err(error) = readable.and_then(|()| self.read(&mut buffer)) {
                tracing::debug!(%error, "cannot read datagrams; trying again after a rest");
                tokio::time::sleep(REST).await;
            }
            // What floods the socket does not hold the thread.
            tokio::task::yield_now().await;
        }
    }

    fn read(self: &Arc<Self>, buffer: &mut [u8]) -> io::Result<()> {
        for _ in 0..BURST {
            match self.socket.try_recv_from(buffer) {
                Ok((length, from)) => self.take(&buffer[..length], from),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Takes a datagram. For an address that has proved nothing, nothing is allocated, and it is sent no more than it
    /// sent three times over (RFC 9000, section 8.1).
    fn take(self: &Arc<Self>, bytes: &[u8], from: SocketAddr) {
        match Datagram::read(bytes) {
            Some(Datagram::Hello(nonce)) => {
                let cookie = self.baker.bake(Use::Connect, &nonce, from);
                self.answer(COOKIE, &[&nonce, cookie.bytes()], from);
            }
            Some(Datagram::Connect {
                nonce,
                cookie,
                first,
            }) => {
                if self.baker.knows(&cookie, Use::Connect, &nonce, from) {
                    self.connect(nonce, from, first);
                } else {
                    self.gate.count_bad_input("udp_cookie");
                }
            }
            Some(Datagram::Of(id, event)) => self.hand_on(id, event, bytes, from),
            None => self.gate.count_bad_input("udp_datagram"),
        }
    }

    /// Opens a session, or says again that it is open.
    fn connect(self: &Arc<Self>, nonce: Nonce, from: SocketAddr, first: &[u8]) {
        let opened = match self.opened.entry((from, nonce)) {
            Entry::Vacant(vacant) => {
                let mut id = ConnectionId::default();
                if let Err(error) = getrandom::fill(&mut id) {
                    tracing::error!(%error, "there is no randomness for a connection id");
                    return;
                }
                let slot = match self.gate.slot(Some(from)) {
                    Ok(slot) => slot,
                    Err(refusal) => {
                        let refusal = session::refused(&nonce, &refusal);
                        return self.send(&refusal, from);
                    }
                };
                vacant.insert(id);
                let peer = Arc::new(Peer {
                    id,
                    nonce,
                    origin: from,
                    inbox: Inbox::default(),
                    address: std::sync::Mutex::new(None),
                });
                self.sessions.insert(id, Arc::clone(&peer));
                let first = first.to_vec().into();
                self.gate
                    .spawn(session::run(Arc::clone(self), peer, slot, first));
                return;
            }
            Entry::Occupied(opened) => *opened.get(),
        };
        // Until it is admitted there is nothing to say.
        if let Some(peer) = self.sessions.get(&opened)
            && peer.address().is_some()
        {
            self.answer(ACCEPTED, &[&peer.nonce, &peer.id], from);
        }
    }

    fn hand_on(&self, id: ConnectionId, event: Event<'_>, bytes: &[u8], from: SocketAddr) {
        let Some(peer) = self.sessions.get(&id).map(|peer| Arc::clone(&peer)) else {
            self.gate.count_bad_input("udp_unknown");
            // The client should know that its session is gone. What is an answer itself is not answered.
            if matches!(event, Event::Frame(_) | Event::Numbered(..) | Event::Ping) {
                let gone = CloseReason::ConnectionLost.code().to_be_bytes();
                self.answer(CLOSE, &[&id, &gone], from);
            }
            return;
        };
        let Some(address) = peer.address() else {
            // Not admitted yet: the client does not know its id, so this is somebody else's.
            return self.gate.count_bad_input("udp_unknown");
        };
        if address != from && !self.follow(&peer, event, from) {
            return;
        }
        if event == Event::Ping {
            self.answer(PONG, &[&id], from);
        }
        if !peer.inbox.push(bytes) {
            self.gate.count_bad_input("udp_overrun");
        }
    }

    /// A datagram of a client that came from another address than those before it. It is told to prove that it is
    /// there, and from then on it is; says whether what it sent is heard meanwhile.
    fn follow(&self, peer: &Peer, event: Event<'_>, from: SocketAddr) -> bool {
        match event {
            Event::Moved(cookie) => {
                let proven = self.baker.knows(&cookie, Use::Move, &peer.id, from);
                if proven {
                    peer.set_address(from);
                } else {
                    self.gate.count_bad_input("udp_cookie");
                }
                proven
            }
            Event::Frame(_) | Event::Numbered(..) | Event::Ping => {
                let cookie = self.baker.bake(Use::Move, &peer.id, from);
                self.answer(CHALLENGE, &[cookie.bytes()], from);
                event != Event::Ping
            }
            // A close or a pong from nowhere proves nothing, and asks for nothing.
            Event::Close(_) | Event::Pong => false,
        }
    }

    /// Sends a short datagram that is laid on the stack.
    fn answer(&self, kind: u8, parts: &[&[u8]], to: SocketAddr) {
        let mut datagram = [0; 64];
        datagram[0] = kind;
        let mut length = 1;
        for part in parts {
            datagram[length..length + part.len()].copy_from_slice(part);
            length += part.len();
        }
        self.send(&datagram[..length], to);
    }

    /// Sends without waiting: what a full socket does not take is lost, as datagrams may be.
    pub(super) fn send(&self, datagram: &[u8], to: SocketAddr) {
        if let Err(error) = self.socket.try_send_to(datagram, to) {
            tracing::debug!(%error, %to, "a datagram was not sent");
        }
    }

    /// Says that the session is open, and to what name it answers.
    pub(super) fn accept(&self, peer: &Peer) {
        peer.set_address(peer.origin);
        self.answer(ACCEPTED, &[&peer.nonce, &peer.id], peer.origin);
    }

    /// Forgets a session.
    pub(super) fn forget(&self, peer: &Peer) {
        self.sessions.remove(&peer.id);
        self.opened.remove(&(peer.origin, peer.nonce));
    }
}

const _: () = {
    // A cookie is no more than three times the question, nor is a challenge or a close.
    let hello = 1 + MAGIC.len() + size_of::<Nonce>();
    assert!(1 + size_of::<Nonce>() + PROOF <= 3 * hello);
    let shortest = 1 + size_of::<ConnectionId>();
    assert!(PROOF < 3 * shortest);
    assert!(1 + size_of::<ConnectionId>() + 2 <= 3 * shortest);
};
