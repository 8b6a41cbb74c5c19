//! Reading files again when they changed, and on SIGHUP.

use std::{io, pin::pin, time::Duration};

use tokio::task::spawn_blocking;

use super::{Tls, TlsError};

/// How often files are looked at. Certificates change every few weeks, and hours before the old ones end.
const INTERVAL: Duration = Duration::from_secs(10);

impl Tls {
    /// Watches the files until the endpoint closes. Signals are listened for from the call on.
    pub(crate) fn watch(self, closing: impl Future<Output = ()>) -> impl Future<Output = ()> {
        let hang_up = HangUp::listen()
            .inspect_err(|error| tracing::warn!(%error, "SIGHUP is not listened for"));
        self.look(hang_up.ok(), closing)
    }

    async fn look(self, mut hang_up: Option<HangUp>, closing: impl Future<Output = ()>) {
        let mut closing = pin!(closing);
        // Not known yet, so the first look reads: there is no telling whether they changed since the start.
        let mut seen = None;
        loop {
            let asked = tokio::select! {
                () = &mut closing => return,
                () = HangUp::heard(&mut hang_up) => true,
                () = tokio::time::sleep(INTERVAL) => false,
            };
            let tls = self.clone();
            let looked = spawn_blocking(move || {
                let fingerprint = tls.files.fingerprint();
                if asked || seen != Some(fingerprint) {
                    tls.tell(tls.reload());
                }
                fingerprint
            });
            // It does not panic, and is not aborted.
            seen = looked.await.ok();
        }
    }

    fn tell(&self, reloaded: Result<(), TlsError>) {
        match reloaded {
            Ok(()) => tracing::info!(files = ?self.files, "certificates were read"),
            Err(error) => tracing::warn!(%error, "certificates stay as they were"),
        }
    }
}

/// SIGHUP, where there are signals.
struct HangUp(#[cfg(unix)] tokio::signal::unix::Signal);

impl HangUp {
    #[cfg(unix)]
    fn listen() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        signal(SignalKind::hangup()).map(Self)
    }

    #[cfg(not(unix))]
    fn listen() -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn heard(this: &mut Option<Self>) {
        #[cfg(unix)]
        if let Some(Self(signal)) = this {
            signal.recv().await;
            return;
        }
        let _ = this;
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, sync::PoisonError};

    use super::*;

    fn write_certificate(tls: &Tls) {
        let new = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("one");
        fs::write(&tls.files.key, new.signing_key.serialize_pem()).expect("it is written");
        fs::write(&tls.files.certificates, new.cert.pem()).expect("it is written");
    }

    #[tokio::test(start_paused = true)]
    async fn files_that_changed_are_read_and_bad_ones_change_nothing() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = |name| directory.path().join(name);
        let tls = Tls::files(path("certificate.pem"), path("key.pem"));
        assert!(tls.reload().is_err(), "there is nothing yet");
        write_certificate(&tls);
        tls.reload().expect("good files");
        let current = || {
            let current = tls.current.read().unwrap_or_else(PoisonError::into_inner);
            current.clone().expect("something was read")
        };
        let watching = tokio::spawn(tls.clone().watch(std::future::pending()));
        tokio::time::sleep(INTERVAL * 2).await;
        let first = current();
        tokio::time::sleep(INTERVAL * 2).await;
        assert!(std::ptr::eq(&*first, &*current()), "they did not change");
        fs::write(path("certificate.pem"), "nonsense").expect("it is written");
        tokio::time::sleep(INTERVAL * 2).await;
        assert!(std::ptr::eq(&*first, &*current()), "they are not good");
        write_certificate(&tls);
        tokio::time::sleep(INTERVAL * 2).await;
        assert!(!std::ptr::eq(&*first, &*current()), "they are new and good");
        watching.abort();
    }
}
