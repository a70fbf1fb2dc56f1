//! What a site may send, and when. Pure: time comes in as an argument.
//!
//! | module | what it is for |
//! |---|---|
//! | [`rate`] | a rate, nothing at all, or no limit |
//! | [`timetable`] | rates by the hours of the week, in a time zone |
//! | [`period`] | the days and months that budgets are for |
//! | [`budget`] | bytes for a day and a month, spread over the time left |
//! | [`counter`] | what of them is used up, on disk as well; clocks may step |
//! | [`meter`] | the counter's durable form runs ahead of use, so that a power cut can only count too much |
//! | [`limits`] | all of it in one answer: which rate holds at this moment, why, and until when |

pub mod budget;
pub mod counter;
pub mod limits;
pub mod meter;
pub mod period;
pub mod rate;
pub mod timetable;

pub use budget::{Budget, Open, Pace};
pub use counter::Counter;
pub use limits::{Decision, Limits, Why};
pub use meter::Meter;
pub use period::{Calendar, Period};
pub use rate::Rate;
pub use timetable::Timetable;
