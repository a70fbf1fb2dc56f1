//! SIGTERM and SIGINT: the first asks for a drain, the second leaves at once.

use std::{io, thread};

use tokio::{
    runtime,
    signal::unix::{Signal, SignalKind, signal},
};
use tokio_util::sync::CancellationToken;

use crate::Exit;

/// Begins to listen for SIGTERM and SIGINT; the token is cancelled by the first of them.
///
/// A second one ends the process with [`Exit::Terminated`] or [`Exit::Interrupted`], without running destructors: whatever is not
/// acknowledged stays where it is and is sent again after the next start. This runs on a thread of its own, so that it works while the
/// data plane is stuck. Call once, early.
///
/// # Errors
/// When the thread or the handlers cannot be set up.
pub fn install() -> io::Result<CancellationToken> {
    let runtime = runtime::Builder::new_current_thread().enable_io().build()?;
    let entered = runtime.enter();
    let mut signals = Signals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? };
    drop(entered);
    let token = CancellationToken::new();
    let stop = token.clone();
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async move {
            let first = signals.next().await;
            tracing::info!(signal = first.name(), "draining; the next signal leaves at once");
            stop.cancel();
            let second = signals.next().await;
            tracing::warn!(signal = second.name(), "left without draining");
            std::process::exit(i32::from(second.exit().code()));
        });
    })?;
    Ok(token)
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    async fn next(&mut self) -> Caught {
        tokio::select! {
            _ = self.terminate.recv() => Caught::Terminate,
            _ = self.interrupt.recv() => Caught::Interrupt,
        }
    }
}

#[derive(Clone, Copy)]
enum Caught {
    Terminate,
    Interrupt,
}

impl Caught {
    fn name(self) -> &'static str {
        match self {
            Self::Terminate => "SIGTERM",
            Self::Interrupt => "SIGINT",
        }
    }

    fn exit(self) -> Exit {
        match self {
            Self::Terminate => Exit::Terminated,
            Self::Interrupt => Exit::Interrupted,
        }
    }
}
