//! What agent and collector share in talking to Kafka through librdkafka.
//!
//! | module | what for |
//! |---|---|
//! | [`client`] | a client's settings from `[kafka]`, and its log lines into ours |
//! | [`events`] | a consumer's queue with what rdkafka hides: at which offset a partition ended, which partition an error is about |
//! | [`topics`] | ids and partition counts of topics (`DescribeTopics`) |
//! | [`watermarks`] | the end of a partition as the client last heard it |
//!
//! The last three call librdkafka directly, because rdkafka 0.39 does not wrap what they need; they hold all the unsafe code of Spillway.

pub mod client;
pub mod events;
pub mod topics;
pub mod watermarks;

pub use client::{Context, admin_client_config, client_config, log_line};
