//! `lab chaos`: faults against the promise that every record arrives exactly once and in order.
//!
//! | module | what it is for |
//! |---|---|
//! | [`schedule`] | which faults, when, at which moment of a transaction (pure; drawn from a seed) |
//! | [`tally`] | what has happened, against what was meant to (pure) |
//! | [`player`] | makes the faults of a schedule happen and proves the moment of each |
//! | [`outage`], [`disk`] | those of its faults that need a spill, and the disk that is filled |
//! | [`scene`] | where a schedule is played |
//! | [`real`] | real processes between clusters of Apache Kafka |
//! | [`inside`], [`fleet`] | agent, collectors and brokers in this process; many schedules side by side |
//! | [`load`] | what is written meanwhile |
//! | [`witness`] | the local group never past the centre |

pub mod disk;
pub mod fleet;
pub mod inside;
pub mod load;
pub mod outage;
pub mod player;
pub mod real;
pub mod scene;
pub mod schedule;
pub mod tally;
pub mod witness;
