//! The end of a partition as librdkafka last heard it, without asking the broker.

#![expect(unsafe_code, reason = "rdkafka 0.39 does not wrap the cached watermarks")]

use std::ffi::CString;

use rdkafka::bindings as rd;
use rdkafka::client::{Client, ClientContext};
use spillway_proto::{NextOffset, TopicPartition};

/// The partition's high watermark in the last answer to a fetch; `None` before the first one. Costs a lock, no network.
pub fn cached_end<C: ClientContext>(client: &Client<C>, partition: &TopicPartition) -> Option<NextOffset> {
    let topic = CString::new(partition.topic.as_str()).ok()?;
    let (mut low, mut high) = (-1, -1);
    // SAFETY: the handle is alive as long as the client, the name is a C string, and both results are written before the call returns.
    let code = unsafe {
        rd::rd_kafka_get_watermark_offsets(client.native_ptr(), topic.as_ptr(), partition.partition.to_kafka(), &raw mut low, &raw mut high)
    };
    (code == rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR).then(|| NextOffset::from_kafka(high)).flatten()
}
