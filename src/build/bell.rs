//! Tells when a make has returned a token.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::net::unix::pipe;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

/// Rings for every make of a build.
#[derive(Clone, Debug, Default)]
pub(super) struct Bell(Arc<Notify>);

/// One make's rope; cut when dropped.
#[derive(Debug)]
pub(super) struct Rope {
    returned: Arc<AtomicU32>,
    task: AbortHandle,
}

/// Tokens taken out of a pipe by one call.
const BATCH: usize = 512;

impl Bell {
    /// Rings whenever something is written into the pipe.
    pub(super) fn hang(&self, pipe: &File) -> io::Result<Rope> {
        let pipe = pipe::Receiver::from_file(pipe.try_clone()?)?;
        let (bell, returned) = (self.clone(), Arc::default());
        let counted = Arc::clone(&returned);
        let task = tokio::spawn(async move { bell.ring(&pipe, &counted).await }).abort_handle();
        Ok(Rope { returned, task })
    }

    async fn ring(&self, pipe: &pipe::Receiver, returned: &AtomicU32) {
        let mut bytes = [0; BATCH];
        // Its only errors are those of a runtime that ends.
        while pipe.readable().await.is_ok() {
            // Whoever else reads the pipe may be quicker.
            if let Ok(count @ 1..) = pipe.try_read(&mut bytes) {
                returned.fetch_add(count as u32, Ordering::Relaxed);
                self.0.notify_one();
            }
        }
    }

    /// It rang since this was asked last.
    pub(super) async fn rung(&self) {
        self.0.notified().await;
    }
}

impl Rope {
    /// Takes the tokens that it rang for.
    pub(super) fn take(&self) -> u32 {
        self.returned.swap(0, Ordering::Relaxed)
    }
}

impl Drop for Rope {
    fn drop(&mut self) {
        self.task.abort();
    }
}
