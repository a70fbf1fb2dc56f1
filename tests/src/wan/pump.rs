//! Moves packets between the two devices and the [`Link`]: the only place that knows devices and the clock.

use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use tun_rs::{DeviceBuilder, SyncDevice};

use super::link::{Link, PREFIX_BITS};
use super::order::Direction;
use crate::notice;

/// The device's name in both namespaces.
pub const DEVICE: &str = "wan0";

/// As on most lines.
const MTU: u16 = 1500;

/// Packets that the kernel keeps for the pump, so that it drops none itself while the pump does not run: a second of 100 Mbit/s.
const DEVICE_QUEUE_PACKETS: u32 = 10_000;

/// Packets taken from one device before the other has its turn.
const BATCH_PACKETS: usize = 64;

/// The pump goes before what it is to measure: on a busy machine a packet would come too late.
const NICE: i32 = -15;

/// What the pump and those who give orders share.
#[derive(Debug)]
pub struct Shared {
    started: Instant,
    link: Mutex<Link>,
    wake: OwnedFd,
    stopped: AtomicBool,
}

impl Shared {
    /// A link whose time begins now.
    ///
    /// # Errors
    /// When the kernel has no eventfd to give.
    pub fn new(link: Link) -> Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).context("cannot make an eventfd")?;
        Ok(Self { started: Instant::now(), link: Mutex::new(link), wake, stopped: AtomicBool::new(false) })
    }

    /// Does something to the link, at its time, and lets the pump look at the result.
    pub fn with<T>(&self, work: impl FnOnce(&mut Link, Duration) -> T) -> T {
        let result = work(&mut self.link(), self.started.elapsed());
        self.wake();
        result
    }

    fn link(&self) -> MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        // It is full only if the pump is to wake already.
        let _woken = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }
}

/// The running pump. Dropping it closes the devices.
#[derive(Debug)]
pub struct Pump {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Pump {
    /// Starts to move packets between the edge's device and the centre's.
    ///
    /// # Errors
    /// When no thread can be had.
    pub fn start(shared: &Arc<Shared>, edge: SyncDevice, centre: SyncDevice) -> Result<Self> {
        let own = Arc::clone(shared);
        let thread = std::thread::Builder::new().name("wan-pump".to_owned()).spawn(move || {
            // Without it the link is as good as the machine is idle.
            let _niced = rustix::process::nice(NICE);
            if let Err(error) = run(&own, [&edge, &centre]) {
                notice::tell(format_args!("lab: the WAN stands still: {error:#}"));
            }
        })?;
        Ok(Self { shared: Arc::clone(shared), thread: Some(thread) })
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        self.shared.wake();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// Makes the device of this thread's namespace.
///
/// # Errors
/// When the kernel refuses it.
pub fn device(address: Ipv4Addr) -> Result<SyncDevice> {
    let builder = DeviceBuilder::new().name(DEVICE).ipv4(address, PREFIX_BITS, None).mtu(MTU).tx_queue_len(DEVICE_QUEUE_PACKETS);
    let device = builder.build_sync().context("cannot make a TUN device")?;
    device.set_nonblocking(true)?;
    Ok(device)
}

fn run(shared: &Shared, devices: [&SyncDevice; 2]) -> Result<()> {
    let [edge, centre] = devices;
    let mut buffer = vec![0; usize::from(u16::MAX)];
    while !shared.stopped.load(Ordering::Relaxed) {
        let mut link = shared.link();
        let from_edge = take(&mut link, shared, edge, Direction::ToCentre, &mut buffer)?;
        let from_centre = take(&mut link, shared, centre, Direction::ToEdge, &mut buffer)?;
        let now = shared.started.elapsed();
        while let Some((direction, packet)) = link.pop(now) {
            let device = if direction == Direction::ToCentre { centre } else { edge };
            // A kernel that has no memory for it drops it, as any router would; TCP and QUIC live with that.
            let _sent = device.send(&packet);
        }
        let due = link.next_due();
        drop(link);
        if from_edge < BATCH_PACKETS && from_centre < BATCH_PACKETS {
            let wait = due.map(|due| due.saturating_sub(shared.started.elapsed()));
            sleep(shared, devices, wait)?;
        }
    }
    Ok(())
}

/// Takes what a device has, up to a batch; answers how many packets.
fn take(link: &mut Link, shared: &Shared, device: &SyncDevice, direction: Direction, buffer: &mut [u8]) -> Result<usize> {
    for taken in 0..BATCH_PACKETS {
        let bytes = match device.recv(buffer) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(taken),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error).context("cannot read the device"),
        };
        let packet = buffer.get(..bytes).unwrap_or_default();
        // Namespaces talk IPv6 among themselves (router solicitations); the link is IPv4.
        if packet.first().is_some_and(|first| first >> 4 == 4) {
            link.push(shared.started.elapsed(), direction, packet.to_vec());
        }
    }
    Ok(BATCH_PACKETS)
}

/// Waits for a packet, an order, or until `wait` has passed.
fn sleep(shared: &Shared, devices: [&SyncDevice; 2], wait: Option<Duration>) -> Result<()> {
    let timeout = wait.and_then(|wait| Timespec::try_from(wait).ok());
    let [edge, centre] = devices.map(|device| PollFd::from_borrowed_fd(device.as_fd(), PollFlags::IN));
    let mut fds = [edge, centre, PollFd::new(&shared.wake, PollFlags::IN)];
    match poll(&mut fds, timeout.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(error).context("cannot wait for packets"),
    }
    // Emptied whether or not it was the cause.
    let _emptied = rustix::io::read(&shared.wake, &mut [0; 8]);
    Ok(())
}
