//! Optional values in eight bytes, for what every stream has a place for and few have.

use crate::error::ErrorCode;
use std::fmt;

/// No number of the wire.
const NONE: u64 = u64::MAX;

/// A final size, if there is one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct OptionalSize(u64);

impl OptionalSize {
    pub(super) const NONE: Self = Self(NONE);

    pub(super) fn get(self) -> Option<u64> {
        (self != Self::NONE).then_some(self.0)
    }
}

impl From<u64> for OptionalSize {
    fn from(size: u64) -> Self {
        Self(size)
    }
}

impl fmt::Debug for OptionalSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

/// The code of an early end, if there is one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct OptionalCode(u64);

impl OptionalCode {
    pub(super) const NONE: Self = Self(NONE);

    pub(super) fn get(self) -> Option<ErrorCode> {
        self.is_some().then(|| ErrorCode::from_wire(self.0))
    }

    pub(super) fn is_some(self) -> bool {
        self != Self::NONE
    }
}

impl From<ErrorCode> for OptionalCode {
    fn from(code: ErrorCode) -> Self {
        Self(code.to_wire())
    }
}

impl fmt::Debug for OptionalCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::TransportCode;
    use crate::limits::VARINT_MAX;

    #[test]
    fn values_of_the_wire_are_kept_and_none_is_none_of_them() {
        assert_eq!(size_of::<(OptionalSize, OptionalCode)>(), 16);
        assert_eq!((OptionalSize::NONE.get(), OptionalCode::NONE.get()), (None, None));
        for size in [0, 1, VARINT_MAX] {
            assert_eq!(OptionalSize::from(size).get(), Some(size));
        }
        let codes = TransportCode::ALL.iter().map(|code| ErrorCode::from(*code));
        let applications = [0, 1, u32::MAX].map(ErrorCode::Application);
        let cut_short = applications.map(ErrorCode::cut_short);
        for code in codes.chain(applications).chain(cut_short).chain([TransportCode(VARINT_MAX).into()]) {
            assert_eq!(OptionalCode::from(code).get(), Some(code));
        }
    }
}
