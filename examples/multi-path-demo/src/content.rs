//! The files that servers hold.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    ops::Range,
    path::{Component, Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use kwik_tokio::bytes::Bytes;
use sha2::{Digest, Sha256};

/// The name of the generated file.
pub(crate) const GENERATED: &str = "generated.bin";

/// Bytes that are read at once when a whole file is hashed.
const HASH_BYTES: u64 = 1 << 20;

/// Where a server finds files by name.
#[derive(Debug, Clone)]
pub(crate) enum Library {
    /// [`GENERATED`] alone, of so many bytes. No memory or disk holds it.
    Generated(u64),
    /// One file, under its own name.
    File(PathBuf),
    /// The files of a directory.
    Dir(PathBuf),
}

/// One file.
#[derive(Debug, Clone)]
pub(crate) enum Content {
    Generated { length: u64 },
    File { path: PathBuf, length: u64 },
}

impl Library {
    /// The file of that name.
    pub(crate) fn open(&self, name: &str) -> Result<Content> {
        match self {
            Self::Generated(length) if name == GENERATED => Ok(Content::Generated { length: *length }),
            Self::File(path) if path.file_name().is_some_and(|own| own == name) => Content::file(path.clone()),
            Self::Dir(dir) if is_plain(name) => Content::file(dir.join(name)),
            _ => bail!("there is no file `{name}`"),
        }
    }

    /// The name of the only file, if there is only one.
    pub(crate) fn only_name(&self) -> Option<String> {
        match self {
            Self::Generated(_) => Some(GENERATED.to_owned()),
            Self::File(path) => path.file_name()?.to_str().map(str::to_owned),
            Self::Dir(_) => None,
        }
    }
}

/// Whether a name stays within a directory.
fn is_plain(name: &str) -> bool {
    let mut components = Path::new(name).components();
    matches!((components.next(), components.next()), (Some(Component::Normal(_)), None))
}

impl Content {
    fn file(path: PathBuf) -> Result<Self> {
        let metadata = path.metadata().with_context(|| format!("`{}` cannot be read", path.display()))?;
        ensure!(metadata.is_file(), "`{}` is not a file", path.display());
        Ok(Self::File { path, length: metadata.len() })
    }

    pub(crate) fn length(&self) -> u64 {
        match self {
            Self::Generated { length } | Self::File { length, .. } => *length,
        }
    }

    /// The bytes of `range`, read where blocking harms nobody.
    pub(crate) async fn read(&self, range: Range<u64>) -> Result<Bytes> {
        let content = self.clone();
        tokio::task::spawn_blocking(move || content.read_blocking(range)).await?
    }

    /// The SHA-256 of the whole file, in hexadecimal digits.
    pub(crate) async fn sha256(&self) -> Result<String> {
        let content = self.clone();
        let hash = move || {
            let mut hash = Sha256::new();
            for piece in pieces(0..content.length(), HASH_BYTES) {
                hash.update(content.read_blocking(piece)?);
            }
            Ok(hex(hash))
        };
        tokio::task::spawn_blocking(hash).await?
    }

    fn read_blocking(&self, range: Range<u64>) -> Result<Bytes> {
        ensure!(range.start <= range.end && range.end <= self.length(), "{range:?} is not part of the file");
        let len = usize::try_from(range.end - range.start)?;
        match self {
            Self::Generated { .. } => Ok(generate(range.start, len)),
            Self::File { path, .. } => {
                let mut bytes = vec![0; len];
                let mut read = || {
                    let mut file = File::open(path)?;
                    file.seek(SeekFrom::Start(range.start))?;
                    file.read_exact(&mut bytes)
                };
                read().with_context(|| format!("bytes {range:?} of `{}` cannot be read", path.display()))?;
                Ok(bytes.into())
            }
        }
    }
}

/// `range`, cut every `len` bytes.
pub(crate) fn pieces(range: Range<u64>, len: u64) -> impl Iterator<Item = Range<u64>> {
    let mut start = range.start;
    std::iter::from_fn(move || {
        let end = range.end.min(start.saturating_add(len));
        let piece = start..end;
        start = end;
        (!piece.is_empty()).then_some(piece)
    })
}

/// A finished hash, in hexadecimal digits.
pub(crate) fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Pseudo-random bytes that are a function of their offset, so that every server has the same file without storing it.
fn generate(offset: u64, len: usize) -> Bytes {
    let skipped = usize::try_from(offset % 8).unwrap_or_default();
    let mut bytes = vec![0; (skipped + len).next_multiple_of(8)];
    for (index, place) in (offset / 8..).zip(bytes.chunks_exact_mut(8)) {
        place.copy_from_slice(&word(index).to_le_bytes());
    }
    Bytes::from(bytes).slice(skipped..skipped + len)
}

/// SplitMix64 at `index`.
fn word(index: u64) -> u64 {
    let mut z = index.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Reads `64MiB`, `1GiB`, `512KiB` or plain bytes.
pub(crate) fn parse_size(text: &str) -> Result<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match &text[digits.len()..] {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        unit => bail!("`{unit}` is not a unit of size: write KiB, MiB or GiB"),
    };
    let count: u64 = digits.parse().with_context(|| format!("`{text}` is not a size such as 64MiB"))?;
    count.checked_mul(unit).with_context(|| format!("`{text}` is more than can be counted"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cut_of_the_generated_file_is_the_same() {
        let whole = generate(0, 100);
        for (start, end) in [(0, 0), (0, 1), (1, 9), (7, 8), (8, 16), (13, 100)] {
            assert_eq!(generate(start as u64, end - start), whole[start..end], "{start}..{end}");
        }
    }

    #[test]
    fn pieces_cover_the_range_once() {
        let cut: Vec<_> = pieces(3..10, 3).collect();
        assert_eq!(cut, [3..6, 6..9, 9..10]);
        assert_eq!(pieces(5..5, 3).count(), 0);
    }

    #[test]
    fn sizes_are_read_with_their_unit() {
        assert_eq!(parse_size("64MiB").unwrap(), 64 << 20);
        assert_eq!(parse_size("1GiB").unwrap(), 1 << 30);
        assert_eq!(parse_size("17").unwrap(), 17);
        for wrong in ["", "MiB", "1MB", "-1", "99999999999GiB"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_name_does_not_leave_its_directory() {
        let library = Library::Dir(std::env::temp_dir());
        for name in ["../secret", "/etc/passwd", "a/b", "..", ".", ""] {
            assert!(library.open(name).is_err(), "{name}");
        }
    }
}
