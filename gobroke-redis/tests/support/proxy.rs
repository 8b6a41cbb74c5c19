//! A proxy between one instance and Redis, that can be cut.

use std::{net::SocketAddr, path::PathBuf};

use tokio::{
    net::{TcpListener, TcpStream, UnixStream},
    sync::watch,
    task::AbortHandle,
};

pub(crate) struct Proxy {
    addr: SocketAddr,
    cut: watch::Sender<bool>,
    task: AbortHandle,
}

impl Proxy {
    pub(crate) async fn start(to: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let cut = watch::Sender::new(false);
        let task = tokio::spawn(serve(listener, to, cut.clone())).abort_handle();
        Self { addr, cut, task }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Cuts all connections and lets none through, or lets them through again.
    pub(crate) fn cut(&self, cut: bool) {
        self.cut.send_replace(cut);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        self.cut.send_replace(true);
    }
}

async fn serve(listener: TcpListener, to: PathBuf, cut: watch::Sender<bool>) {
    loop {
        let (client, _) = listener.accept().await.unwrap();
        tokio::spawn(carry(client, to.clone(), cut.subscribe()));
    }
}

async fn carry(mut client: TcpStream, to: PathBuf, mut cut: watch::Receiver<bool>) {
    if *cut.borrow() {
        return;
    }
    let Ok(mut server) = UnixStream::connect(to).await else {
        return;
    };
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
        _ = cut.wait_for(|cut| *cut) => {}
    }
}
