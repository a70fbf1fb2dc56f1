//! Decompression of the records of a batch. The broker stores batches as they came and looks inside only to answer
//! questions about timestamps and to check keys of compacted topics.

use std::borrow::Cow;
use std::io::Read;

use kafka_protocol::ResponseError;

/// The most that one batch may decompress to. Kafka's own clients refuse batches far below this.
const DECOMPRESSED_MAX: u64 = 256 * 1024 * 1024;
/// What the Java client puts before its snappy blocks: magic, version 1, compatible with version 1.
const SNAPPY_JAVA_MAGIC: &[u8] = b"\x82SNAPPY\x00";
const SNAPPY_JAVA_HEADER_LEN: usize = 16;

/// Decompresses `body` with the codec number of the batch attributes.
///
/// # Errors
/// `CORRUPT_MESSAGE` when it does not decompress or grows beyond 256 MiB, `UNSUPPORTED_COMPRESSION_TYPE` for a number
/// that means no codec.
pub(crate) fn decompress(codec: i16, body: &[u8]) -> Result<Cow<'_, [u8]>, ResponseError> {
    match codec {
        0 => Ok(Cow::Borrowed(body)),
        1 => read_all(flate2::read::MultiGzDecoder::new(body)),
        2 => snappy(body),
        3 => read_all(lz4_flex::frame::FrameDecoder::new(body)),
        4 => read_all(zstd::stream::read::Decoder::new(body).map_err(|_| ResponseError::CorruptMessage)?),
        _ => Err(ResponseError::UnsupportedCompressionType),
    }
}

fn read_all(decoder: impl Read) -> Result<Cow<'static, [u8]>, ResponseError> {
    let mut out = Vec::new();
    decoder.take(DECOMPRESSED_MAX + 1).read_to_end(&mut out).map_err(|_| ResponseError::CorruptMessage)?;
    if out.len() as u64 > DECOMPRESSED_MAX {
        return Err(ResponseError::CorruptMessage);
    }
    Ok(Cow::Owned(out))
}

/// Snappy comes in two forms: librdkafka sends one raw block, the Java client a header and length-prefixed blocks.
fn snappy(body: &[u8]) -> Result<Cow<'static, [u8]>, ResponseError> {
    if !body.starts_with(SNAPPY_JAVA_MAGIC) {
        return snappy_block(body).map(Cow::Owned);
    }
    let mut out = Vec::new();
    let mut rest = body.get(SNAPPY_JAVA_HEADER_LEN..).ok_or(ResponseError::CorruptMessage)?;
    while !rest.is_empty() {
        let (len, tail) = rest.split_first_chunk::<4>().ok_or(ResponseError::CorruptMessage)?;
        let (block, tail) = tail.split_at_checked(u32::from_be_bytes(*len) as usize).ok_or(ResponseError::CorruptMessage)?;
        out.extend(snappy_block(block)?);
        rest = tail;
    }
    Ok(Cow::Owned(out))
}

fn snappy_block(block: &[u8]) -> Result<Vec<u8>, ResponseError> {
    let len = snap::raw::decompress_len(block).map_err(|_| ResponseError::CorruptMessage)?;
    if len as u64 > DECOMPRESSED_MAX {
        return Err(ResponseError::CorruptMessage);
    }
    snap::raw::Decoder::new().decompress_vec(block).map_err(|_| ResponseError::CorruptMessage)
}
