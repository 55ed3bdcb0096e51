//! What a machine offers and a boot switches on.

use std::fmt;

/// What a machine offers, and what boot configuration has switched on; `if feature NAME` folds at assembly as
/// ALTERNATIVEs and static keys do at boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Features(u16);

/// One feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Feature {
    /// Page-table isolation is on.
    Pti = 1,
    /// CR4.PCIDE is set.
    Pcid = 2,
    /// INVPCID exists.
    Invpcid = 4,
    /// INVLPGB exists and is used.
    Invlpgb = 8,
    /// Remote action requests exist.
    Rar = 16,
    /// Static key `housekeeping_overridden`.
    HousekeepingOverridden = 32,
    /// Context tracking is active on `nohz_full` CPUs.
    ContextTracking = 64,
    /// Events are delivered by FRED; Linux switches it off under PTI.
    Fred = 128,
}

impl Feature {
    /// Every feature with the name the policy language gives it.
    pub const ALL: [(&'static str, Feature); 8] = [
        ("pti", Feature::Pti),
        ("pcid", Feature::Pcid),
        ("invpcid", Feature::Invpcid),
        ("invlpgb", Feature::Invlpgb),
        ("rar", Feature::Rar),
        ("housekeeping_overridden", Feature::HousekeepingOverridden),
        ("context_tracking", Feature::ContextTracking),
        ("fred", Feature::Fred),
    ];

    /// By name.
    pub fn named(name: &str) -> Option<Feature> {
        Self::ALL.iter().find(|(n, _)| *n == name).map(|&(_, f)| f)
    }
}

impl Features {
    /// None.
    pub const NONE: Features = Features(0);

    /// An Intel server with PTI on, isolated CPUs configured: the machine of the series' measurements.
    pub const PTI_PCID: Features = Features(1 | 2 | 4 | 32 | 64);

    /// With one more.
    #[must_use]
    pub const fn with(self, f: Feature) -> Self {
        Features(self.0 | f as u16)
    }

    /// Without one.
    #[must_use]
    pub const fn without(self, f: Feature) -> Self {
        Features(self.0 & !(f as u16))
    }

    /// Whether it is on.
    pub const fn has(self, f: Feature) -> bool {
        self.0 & f as u16 != 0
    }
}

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = Feature::ALL.iter().filter(|(_, x)| self.has(*x)).map(|(n, _)| *n).collect();
        f.write_str(&names.join("+"))
    }
}
