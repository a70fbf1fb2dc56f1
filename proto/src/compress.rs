//! The one place that compresses and decompresses. Decompression is capped: a body can never become larger than its header said,
//! and its header was checked against the limit before.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use zstd::zstd_safe::CParameter;

use crate::codec::DecodeError;
use crate::columns::{self, Packer};
use crate::dictionary::{Dictionary, DictionaryId};
use crate::frame::Section;

mod after;
mod habit;
mod trained;

pub(crate) use after::{CompressorAfter, DecompressorAfter};

use habit::Habits;
pub use trained::MAX_TRAINED;
use trained::Trained;

/// How a frame's body is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// As it is: the data did not get smaller.
    Stored,
    /// One zstd frame with its content size.
    Zstd,
    /// Turned into [`columns`], then one zstd frame. From version 2 of the protocol on.
    Columns,
    /// The id of a dictionary, four bytes big-endian, then the same with it. From version 2 on.
    ColumnsWithDictionary,
}

impl Codec {
    /// The number on the wire.
    pub fn code(self) -> u8 {
        match self {
            Self::Stored => 0,
            Self::Zstd => 1,
            Self::Columns => 2,
            Self::ColumnsWithDictionary => 3,
        }
    }

    /// The codec behind a number.
    ///
    /// # Errors
    /// [`DecodeError::Unknown`] for any other number.
    pub fn from_code(code: u8) -> Result<Self, DecodeError> {
        match code {
            0 => Ok(Self::Stored),
            1 => Ok(Self::Zstd),
            2 => Ok(Self::Columns),
            3 => Ok(Self::ColumnsWithDictionary),
            _ => Err(DecodeError::Unknown { what: "codec", value: u64::from(code) }),
        }
    }

    /// What it is as a habit: whether there is a dictionary is known anyway.
    fn habitual(self) -> Self {
        if self == Self::ColumnsWithDictionary { Self::Columns } else { self }
    }

    /// The oldest version of the protocol that has the codec.
    pub fn since(self) -> u8 {
        match self {
            Self::Stored | Self::Zstd => 1,
            Self::Columns | Self::ColumnsWithDictionary => 2,
        }
    }
}

/// From this level on, rows are turned into columns where that gains something. Below it, time counts more.
pub const COLUMNS_LEVEL: i32 = 3;

/// The default bound of zstd's working memory, in bytes.
pub const DEFAULT_MEMORY_BYTES: usize = 16 << 20;

/// Compresses bodies; holds zstd's working memory, and that of the columns, so that it is allocated once.
pub struct Compressor {
    context: zstd::bulk::Compressor<'static>,
    level: i32,
    columns: bool,
    packer: Packer,
    kind: usize,
    habits: Vec<Habits>,
    dictionaries: bool,
    trained: Trained,
    made: Option<Arc<Dictionary>>,
}

impl Compressor {
    /// A compressor of the given zstd level, 1 to 19, that writes what version 1 of the protocol knows and takes at most [`DEFAULT_MEMORY_BYTES`].
    ///
    /// # Errors
    /// When zstd cannot allocate its context.
    pub fn new(level: i32) -> Result<Self, std::io::Error> {
        Self::with_memory(level, DEFAULT_MEMORY_BYTES)
    }

    /// The same with another bound of zstd's working memory, at least [`LEAST_MEMORY_BYTES`]: the search for repetitions reaches back less far where it is low.
    ///
    /// # Errors
    /// When zstd cannot allocate its context.
    pub fn with_memory(level: i32, memory_bytes: usize) -> Result<Self, std::io::Error> {
        let mut context = zstd::bulk::Compressor::new(level)?;
        context.set_parameter(CParameter::WindowLog(window_log(memory_bytes)))?;
        Ok(Self {
            context,
            level,
            columns: false,
            packer: Packer::new(),
            kind: 0,
            habits: vec![Habits::default()],
            dictionaries: false,
            trained: Trained::default(),
            made: None,
        })
    }

    /// Changes the level.
    ///
    /// # Errors
    /// When zstd knows no such level; the one before stays.
    pub fn set_level(&mut self, level: i32) -> Result<(), std::io::Error> {
        if level != self.level {
            self.context.set_parameter(CParameter::CompressionLevel(level))?;
            self.level = level;
        }
        Ok(())
    }

    /// The level.
    pub fn level(&self) -> i32 {
        self.level
    }

    /// Says whether bodies may be turned into columns, which takes version 2 of the protocol.
    pub fn allow_columns(&mut self, allowed: bool) {
        self.columns = allowed;
    }

    /// Says whether columns may name dictionaries. Take each new one by [`Self::take_dictionary`] after each frame, and keep it as long as a frame may
    /// name it; at most [`MAX_TRAINED`] are made.
    pub fn allow_dictionaries(&mut self, allowed: bool) {
        self.dictionaries = allowed;
    }

    /// The dictionary that the frames after the last one may name, if it is new.
    pub fn take_dictionary(&mut self) -> Option<Arc<Dictionary>> {
        self.made.take()
    }

    /// Says which kind of frames comes next: what was found out about the data is remembered for each of [`MAX_KINDS`]. Further ones share the last.
    pub fn turn_to(&mut self, kind: usize) {
        self.kind = kind.min(MAX_KINDS - 1);
        if self.habits.len() <= self.kind {
            self.habits.resize_with(self.kind + 1, Habits::default);
        }
    }

    /// Compresses `raw`, the joined rows of `sections`; answers [`Codec::Stored`] with the bytes as they are where compression gains less than a byte in
    /// sixteen, so that incompressible data costs the other side no work.
    pub fn compress(&mut self, sections: &[Section], raw: &[u8]) -> (Codec, Vec<u8>) {
        let columns = self.columns && self.level >= COLUMNS_LEVEL;
        let size = habit::size_of(raw);
        let plan = self.habits.get(self.kind).copied().unwrap_or_default().of(size).plan(columns, raw);
        // Rows may be smaller only as long as there is no dictionary, which is trained from columns.
        let sample = columns && self.dictionaries && plan.rows && !plan.columns && self.trained.seeks(raw.len());
        let packed = if plan.columns || sample { self.columns(sections, raw, plan.trial) } else { None };
        let rows = if plan.rows || (plan.columns && packed.is_none()) { self.context.compress(raw).ok() } else { None };
        let best = packed.into_iter().chain(rows.map(|body| (Codec::Zstd, body)));
        let best = best.min_by_key(|(_, body)| body.len()).filter(|(_, body)| body.len() < raw.len() - raw.len() / 16);
        if let Some(habits) = self.habits.get_mut(self.kind) {
            habits.learn(size, plan, best.as_ref().map_or(Codec::Stored, |(codec, _)| codec.habitual()));
        }
        best.unwrap_or_else(|| (Codec::Stored, raw.to_vec()))
    }

    /// The columns compressed, with a dictionary where that makes them smaller.
    fn columns(&mut self, sections: &[Section], raw: &[u8], trial: bool) -> Option<(Codec, Vec<u8>)> {
        let packed = self.packer.pack(sections, raw)?;
        let with = if self.dictionaries { self.trained.compress(packed, raw.len(), self.level) } else { None };
        let with = with.map(|(dictionary, body)| (Codec::ColumnsWithDictionary, [&dictionary.id().0.to_be_bytes()[..], &body].concat()));
        // Whether the dictionary is still of use is seen at trials only.
        let without = if trial || with.is_none() { self.context.compress(packed).ok() } else { None };
        if let (Some((_, with)), Some(without)) = (&with, &without) {
            self.trained.compared(without.len(), with.len());
        }
        if self.dictionaries {
            let made = self.trained.learn(packed, raw.len(), self.level);
            self.made = made.or_else(|| self.made.take());
        }
        let without = without.map(|body| (Codec::Columns, body));
        [with, without].into_iter().flatten().min_by_key(|(_, body)| body.len())
    }
}

/// Most kinds of frames that a compressor tells apart.
pub const MAX_KINDS: usize = 256;

/// Below this, zstd would find hardly any repetitions.
pub const LEAST_MEMORY_BYTES: usize = 2 << 20;

/// zstd's tables take so many bytes for each byte of the window at level 12, and less below it. Measured with zstd 1.5.7 and asserted in a test.
const BYTES_OF_WINDOW: usize = 21;

/// The largest window, as a power of two, whose tables fit `memory_bytes`.
fn window_log(memory_bytes: usize) -> u32 {
    (memory_bytes.max(LEAST_MEMORY_BYTES) / BYTES_OF_WINDOW).ilog2().min(MAX_WINDOW_LOG)
}

/// No frame needs more ([`crate::limits::MAX_FRAME_RAW_BYTES`]).
const MAX_WINDOW_LOG: u32 = 27;

/// Decompresses bodies; keeps zstd's working memory between calls.
pub struct Decompressor {
    context: zstd::bulk::Decompressor<'static>,
    dictionary: Option<(DictionaryId, zstd::bulk::Decompressor<'static>)>,
}

impl Decompressor {
    /// A decompressor.
    ///
    /// # Errors
    /// When zstd cannot allocate its context.
    pub fn new() -> Result<Self, std::io::Error> {
        Ok(Self { context: zstd::bulk::Decompressor::new()?, dictionary: None })
    }

    /// Restores the rows of `sections`, whose length together is known from the frame's header, which was checked against the session's limit.
    ///
    /// # Errors
    /// When the body is not what the codec says, the rows' length is not exactly `raw_length`, or the dictionary is not the one that the body names.
    /// At most `raw_length` bytes are ever allocated for rows, as many for columns, and what [`columns::unpack`] says.
    pub fn decompress(&mut self, body: &Body<'_>, sections: &[Section], raw_length: usize) -> Result<Vec<u8>, DecodeError> {
        let plain = self.plain(body, raw_length)?;
        rows(body.codec, plain, sections, raw_length)
    }

    /// What was compressed: rows, or columns, which are never more than `raw_length` bytes.
    pub(crate) fn plain<'a>(&mut self, body: &Body<'a>, raw_length: usize) -> Result<Cow<'a, [u8]>, DecodeError> {
        Ok(match body.codec {
            Codec::Stored => Cow::Borrowed(body.bytes),
            Codec::Zstd | Codec::Columns => Cow::Owned(plain(&mut self.context, body.bytes, raw_length)?),
            Codec::ColumnsWithDictionary => {
                let (dictionary, packed) = body.named()?;
                Cow::Owned(plain(self.context_with(dictionary)?, packed, raw_length)?)
            }
        })
    }

    /// The context that has the dictionary; made when the first one is needed.
    fn context_with(&mut self, dictionary: &Dictionary) -> Result<&mut zstd::bulk::Decompressor<'static>, DecodeError> {
        let refused = |error: std::io::Error| DecodeError::Zstd(error.to_string());
        if self.dictionary.as_ref().is_none_or(|(id, _)| *id != dictionary.id()) {
            let context = zstd::bulk::Decompressor::with_dictionary(dictionary.bytes()).map_err(refused)?;
            self.dictionary = Some((dictionary.id(), context));
        }
        self.dictionary.as_mut().map(|(_, context)| context).ok_or_else(|| DecodeError::Dictionary(dictionary.id().0))
    }
}

/// A body as it is stored.
#[derive(Debug, Clone, Copy)]
pub struct Body<'a> {
    /// How.
    pub codec: Codec,
    /// Its bytes.
    pub bytes: &'a [u8],
    /// The dictionary, where one is at hand.
    pub dictionary: Option<&'a Dictionary>,
}

impl<'a> Body<'a> {
    /// The dictionary that a body of [`Codec::ColumnsWithDictionary`] names, and what is behind its name.
    fn named(&self) -> Result<(&'a Dictionary, &'a [u8]), DecodeError> {
        let (id, packed) = named(self.bytes)?;
        let dictionary = self.dictionary.filter(|dictionary| dictionary.id() == id).ok_or(DecodeError::Dictionary(id.0))?;
        Ok((dictionary, packed))
    }
}

/// The rows that were compressed as `plain`.
pub(crate) fn rows(codec: Codec, plain: Cow<'_, [u8]>, sections: &[Section], raw_length: usize) -> Result<Vec<u8>, DecodeError> {
    if matches!(codec, Codec::Columns | Codec::ColumnsWithDictionary) {
        return columns::unpack(&plain, sections, raw_length);
    }
    if plain.len() != raw_length {
        return Err(DecodeError::Mismatch { what: "raw length", left: plain.len() as u64, right: raw_length as u64 });
    }
    Ok(plain.into_owned())
}

/// The dictionary that a body of [`Codec::ColumnsWithDictionary`] names, and what is behind its name.
pub(crate) fn named(body: &[u8]) -> Result<(DictionaryId, &[u8]), DecodeError> {
    let (id, rest) = body.split_first_chunk().ok_or(DecodeError::Truncated { what: "dictionary id", at: 0 })?;
    Ok((DictionaryId(u32::from_be_bytes(*id)), rest))
}

fn plain(context: &mut zstd::bulk::Decompressor<'_>, body: &[u8], most: usize) -> Result<Vec<u8>, DecodeError> {
    context.decompress(body, most).map_err(|error| DecodeError::Zstd(error.to_string()))
}

impl fmt::Debug for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compressor").field("level", &self.level).field("columns", &self.columns).finish_non_exhaustive()
    }
}

impl fmt::Debug for Decompressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decompressor").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
