//! MirrorMaker 2 with a backlog of random bytes, between two brokers of its own.

use std::path::PathBuf;

use anyhow::Result;

use super::figures::Sums;
use super::{Course, watch};
use crate::bench::backlog::{self, TOPIC};
use crate::bench::mirror::Mirror;
use crate::bench::thin::{Ends, Field, HEAP_MIB};

/// Brings the backlog, and is measured from its first record at the centre on.
///
/// # Errors
/// When something does not start, or no record arrives.
pub fn run(course: &Course<'_>, mirror: Mirror) -> Result<Sums> {
    let ends = Ends::start(course.wan, true)?;
    let field = Field::new(course.wan, &ends, TOPIC, PathBuf::new(), HEAP_MIB);
    // No more than the line carries in the time is ever brought.
    backlog::fill(&field, course.line_bits / 8 * (course.after + course.time).as_secs() * 11 / 10)?;
    let bringing = backlog::bring(&field, mirror, mirror.site())?;
    let sums = watch(course, || bringing.payload_bytes(), || None);
    bringing.is_as_meant(&field)?;
    Ok(sums)
}
