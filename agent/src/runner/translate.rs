//! Frames for those who do not know them as they were built: collectors of an older version, and the spill, which outlives dictionaries.

use bytes::Bytes;
use spillway_proto::frame::{Frame, Translator};
use spillway_proto::limits;

use crate::dictionaries::Dictionaries;

/// Other bytes for a frame, with the same sections; `None` where it may stay as it is. One that cannot be read stays as it is, too: whoever gets it says
/// what is wrong with it.
pub(super) fn translated(translator: &mut Translator, dictionaries: &Dictionaries, bytes: &Bytes) -> Option<Bytes> {
    // Most need no more than a look at their second byte.
    if Frame::peek_codec(bytes).is_some_and(|codec| translator.knows(codec)) {
        return None;
    }
    let frame = Frame::decode(bytes.clone(), limits::MAX_FRAME_RAW_BYTES).and_then(|mut frame| {
        if let Some(dictionary) = frame.missing_dictionary().and_then(|id| dictionaries.find(id)) {
            frame.attach(dictionary);
        }
        translator.translate(&frame)
    });
    frame.inspect_err(|error| tracing::error!(%error, "a frame cannot be read again")).ok().flatten().map(|frame| frame.bytes)
}
