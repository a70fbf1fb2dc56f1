//! The same checks, through rdkafka, against the embedded broker (`embedded::…`) and against Apache Kafka (`kafka::…`, which
//! `./lab test` runs with `SPILLWAY_TEST_KAFKA=host:port` and `--include-ignored`). Where they differ, the embedded
//! broker is wrong.
//!
//! - `support`: targets, producers, readers
//! - `ffi`: what librdkafka can do and rdkafka does not show
//! - `records`, `reading`, `transactions`, `admin`, `groups`: the checks
//! - `faults`: what only the embedded broker can do

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

#[path = "conformance/admin.rs"]
mod admin;
#[path = "conformance/faults.rs"]
mod faults;
#[path = "conformance/ffi.rs"]
mod ffi;
#[path = "conformance/groups.rs"]
mod groups;
#[path = "conformance/reading.rs"]
mod reading;
#[path = "conformance/records.rs"]
mod records;
#[path = "conformance/support.rs"]
mod support;
#[path = "conformance/transactions.rs"]
mod transactions;

/// Makes two tests of every check.
macro_rules! conformance {
    ($($module:ident :: $check:ident),* $(,)?) => {
        mod embedded {
            $(#[test]
            fn $check() {
                crate::$module::$check(&crate::support::Target::embedded());
            })*
        }

        mod kafka {
            $(#[test]
            #[ignore = "needs SPILLWAY_TEST_KAFKA"]
            fn $check() {
                crate::$module::$check(&crate::support::Target::kafka());
            })*
        }
    };
}

conformance! {
    records::null_and_empty_keys_and_values_stay,
    records::duplicate_and_binary_headers_stay,
    records::create_time_stays,
    records::log_append_time_is_the_brokers,
    records::gzip_batches_stay,
    records::snappy_batches_stay,
    records::lz4_batches_stay,
    records::zstd_batches_stay,
    records::a_too_large_record_is_refused_until_the_topic_takes_it,
    records::a_timestamp_out_of_range_is_refused,
    records::a_compacted_topic_wants_keys,
    records::one_replica_is_enough_for_all_acks,
    reading::reading_starts_inside_a_batch,
    reading::a_batch_beyond_the_fetch_size_comes_through,
    reading::a_waiting_fetch_wakes,
    reading::times_are_found,
    reading::times_are_found_in_compressed_batches,
    reading::deleted_records_are_out_of_range,
    reading::records_cannot_be_deleted_beyond_the_end,
    reading::every_partition_is_read,
    transactions::committed_is_seen_and_aborted_is_not,
    transactions::markers_take_an_offset,
    transactions::an_open_transaction_hides_what_follows,
    transactions::a_second_producer_fences_the_first,
    transactions::an_epoch_after_an_abort_by_fencing_has_its_data,
    transactions::many_transactions_of_one_producer,
    transactions::a_transaction_spans_partitions,
    transactions::offsets_are_committed_with_the_transaction,
    transactions::a_transaction_times_out,
    transactions::an_open_transaction_bounds_the_search_by_time,
    transactions::records_in_the_middle_of_an_aborted_transaction_stay_hidden,
    transactions::a_refused_record_aborts_and_the_producer_goes_on,
    transactions::transactional_offsets_need_the_current_generation,
    admin::a_topic_made_anew_has_another_id,
    admin::topics_that_cannot_be_are_refused,
    admin::partitions_are_added_and_never_removed,
    admin::topics_have_kafkas_defaults,
    admin::settings_are_replaced,
    admin::settings_are_changed_one_by_one,
    admin::settings_that_cannot_be_are_refused,
    admin::asking_for_a_topic_creates_it,
    admin::the_cluster_has_an_id,
    admin::the_newest_record_is_found,
    groups::offsets_are_kept_without_joining,
    groups::a_group_shares_the_partitions,
    groups::a_cooperative_group_shares_the_partitions,
    groups::groups_are_listed_and_described,
    groups::groups_are_deleted_when_empty,
    groups::strangers_cannot_commit_for_a_live_group,
    groups::offsets_of_a_deleted_topic_are_gone,
    groups::offsets_are_deleted_unless_they_are_in_use,
    groups::a_static_member_comes_back_to_its_partitions,
}
