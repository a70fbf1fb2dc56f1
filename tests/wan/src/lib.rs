//! One direction of a wide-area line, in virtual time: what `./lab wan` puts between two network namespaces, and what the tests of congestion
//! control run against. No I/O, clock or thread: time comes in as an argument, randomness from a seed, so a run can be repeated to the byte.
//!
//! | module | what it is for |
//! |---|---|
//! | [`shape`] | what a line is like: rate, delay, jitter, loss, queue, up or down |
//! | [`mod@line`] | the line itself: packets go in, and come out when they are due |
//! | [`counters`] | what became of them |
//! | [`address`] | the edge's address as the centre sees it |
//!
//! ```
//! use std::time::Duration;
//! use spillway_wan::{Fate, Line, Shape};
//!
//! let shape = Shape { rate: Some(2_000_000), delay: Duration::from_millis(150), ..Shape::default() };
//! let mut line = Line::new(shape, 1);
//! assert_eq!(line.push(Duration::ZERO, 1250, "packet"), Fate::Queued);
//! // 1,250 bytes take 5 ms at 2 Mbit/s.
//! assert_eq!(line.next_due(), Some(Duration::from_millis(155)));
//! assert_eq!(line.pop(Duration::from_millis(154)), None);
//! assert_eq!(line.pop(Duration::from_millis(155)), Some("packet"));
//! ```

pub mod address;
pub mod counters;
pub mod line;
pub mod shape;

pub use counters::{Count, Counters};
pub use line::{Fate, Line, PACKETS_MAX};
pub use shape::{Burst, Loss, QUEUE_BYTES_DEFAULT, Shape};
