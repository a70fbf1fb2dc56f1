//! The witness in a thread of its own.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Result, anyhow};

use super::super::load::TWENTY;
use super::super::scene::SITE;
use super::super::witness::Witness;
use crate::stage::Stage;

/// Between two samples of the witness.
const SAMPLE_PAUSE: Duration = Duration::from_millis(500);

/// The thread, and what it found.
pub(super) struct Watch {
    pub(super) witness: Arc<Mutex<Witness>>,
    stop: Arc<AtomicBool>,
    pub(super) failed: Arc<Mutex<Option<String>>>,
    thread: JoinHandle<Result<u64>>,
}

impl Watch {
    pub(super) fn start(stage: &Stage) -> Result<Self> {
        let witness = Witness::new(&stage.source, &stage.centre, SITE, &TWENTY.topics(), &stage.spill_dir())?;
        let witness = Arc::new(Mutex::new(witness));
        let (stop, failed) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(None)));
        let (stopped, told, looking) = (Arc::clone(&stop), Arc::clone(&failed), Arc::clone(&witness));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                if let Err(error) = looking.lock().unwrap_or_else(PoisonError::into_inner).look() {
                    *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(format!("{error:#}"));
                    return Err(error);
                }
                std::thread::sleep(SAMPLE_PAUSE);
            }
            looking.lock().unwrap_or_else(PoisonError::into_inner).finish()
        });
        Ok(Self { witness, stop, failed, thread })
    }

    pub(super) fn finish(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the witness panicked"))?
    }
}
