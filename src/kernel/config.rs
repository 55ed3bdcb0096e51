//! How a kernel is built and booted: Kconfig, command line, meltdown state. What follows for a CPU is a set of
//! [`Features`] and, for each thing asked for that has no effect, the reason (SEMANTICS L7, L8; FACTS 5).

use super::program::{Feature, Features};
use crate::hw::preset::Features as Cpu;

/// What a kernel decides that the model knows of.
#[allow(clippy::struct_excessive_bools)] // each is a config symbol or a boot parameter
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `pti=`: on, off, or by the CPU.
    pub pti: Option<bool>,
    /// `CONFIG_MITIGATION_PAGE_TABLE_ISOLATION`.
    pub pti_built_in: bool,
    /// `nopcid`.
    pub nopcid: bool,
    /// `noinvpcid`.
    pub noinvpcid: bool,
    /// `CONFIG_NO_HZ_FULL`.
    pub no_hz_full: bool,
    /// `CONFIG_CONTEXT_TRACKING_USER`.
    pub context_tracking: bool,
    /// `CONFIG_COALESCE_TLBI` (v6, v7).
    pub coalesce_tlbi: bool,
    /// `CONFIG_TRACK_CR3` (v8, v9).
    pub track_cr3: bool,
    /// `CONFIG_VMAP_STACK`.
    pub vmap_stack: bool,
    /// INVLPGB used (6.15 and newer).
    pub broadcast_tlb_flush: bool,
    /// Remote action requests used (no kernel yet).
    pub rar: bool,
    /// `tlb_single_page_flush_ceiling`.
    pub flush_ceiling: u32,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            pti: None,
            pti_built_in: true,
            nopcid: false,
            noinvpcid: false,
            no_hz_full: true,
            context_tracking: true,
            coalesce_tlbi: false,
            track_cr3: false,
            vmap_stack: true,
            broadcast_tlb_flush: false,
            rar: false,
            flush_ceiling: 33,
        }
    }
}

/// What a `.config`, a command line and a meltdown state describe, and remarks on what decided what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// The kernel.
    pub config: Config,
    /// Which option decided what; what has no effect.
    pub remarks: Vec<String>,
}

/// A configuration that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

impl Config {
    /// The Kconfig dependencies that hold between these.
    pub fn check(&self) -> Result<(), ConfigError> {
        let fail = |text: &str| Err(ConfigError(text.into()));
        if self.coalesce_tlbi && !self.pti_built_in {
            return fail(
                "COALESCE_TLBI depends on X86_64 && MITIGATION_PAGE_TABLE_ISOLATION && NO_HZ_FULL: MITIGATION_PAGE_TABLE_ISOLATION is not set",
            );
        }
        if self.coalesce_tlbi && !self.no_hz_full {
            return fail(
                "COALESCE_TLBI depends on X86_64 && MITIGATION_PAGE_TABLE_ISOLATION && NO_HZ_FULL: NO_HZ_FULL is not set",
            );
        }
        if self.track_cr3 && !self.pti_built_in {
            return fail(
                "TRACK_CR3 depends on X86_64 && MITIGATION_PAGE_TABLE_ISOLATION: MITIGATION_PAGE_TABLE_ISOLATION is not set",
            );
        }
        if self.no_hz_full && !self.context_tracking {
            return fail("NO_HZ_FULL depends on CONTEXT_TRACKING_USER, which is not set");
        }
        if self.pti == Some(true) && !self.pti_built_in {
            return fail("pti=on needs MITIGATION_PAGE_TABLE_ISOLATION, which is not set");
        }
        Ok(())
    }

    /// From the text of a `.config`, the kernel command line and the content of
    /// `/sys/devices/system/cpu/vulnerabilities/meltdown`. Who is isolated is read elsewhere, by the kernel's version.
    pub fn parse(
        text: &str,
        name: &str,
        cmdline: &str,
        meltdown: Option<&str>,
    ) -> Result<Parsed, ConfigError> {
        let set = |symbol: &str| {
            text.lines().any(|l| l.trim_end().strip_prefix(symbol).is_some_and(|rest| rest == "=y"))
        };
        let known = text.lines().any(|l| l.starts_with("CONFIG_") || l.starts_with("# CONFIG_"));
        if !known {
            return Err(ConfigError(format!(
                "{name}: no line begins with CONFIG_: not a kernel configuration"
            )));
        }
        if let Some((n, line)) = text.lines().enumerate().find(|(_, l)| {
            !(l.trim().is_empty() || l.starts_with('#') || l.starts_with("CONFIG_") && l.contains('='))
        }) {
            return Err(ConfigError(format!(
                "{name}:{}: not a line of a kernel configuration: {line:?}",
                n + 1
            )));
        }
        let mut remarks = Vec::new();
        let mut config = Config {
            pti: None,
            pti_built_in: set("CONFIG_MITIGATION_PAGE_TABLE_ISOLATION") || set("CONFIG_PAGE_TABLE_ISOLATION"),
            nopcid: false,
            noinvpcid: false,
            no_hz_full: set("CONFIG_NO_HZ_FULL"),
            context_tracking: set("CONFIG_CONTEXT_TRACKING_USER") || set("CONFIG_CONTEXT_TRACKING"),
            coalesce_tlbi: set("CONFIG_COALESCE_TLBI"),
            track_cr3: set("CONFIG_TRACK_CR3"),
            vmap_stack: set("CONFIG_VMAP_STACK"),
            broadcast_tlb_flush: set("CONFIG_BROADCAST_TLB_FLUSH"),
            rar: false,
            flush_ceiling: 33,
        };
        if !set("CONFIG_X86_64") {
            return Err(ConfigError(format!(
                "{name}: CONFIG_X86_64 is not set: only x86-64 kernels are modelled"
            )));
        }
        for word in cmdline.split_whitespace() {
            let (key, value) = word.split_once('=').map_or((word, None), |(k, v)| (k, Some(v)));
            match (key, value) {
                ("pti", Some("on")) => config.pti = Some(true),
                ("pti", Some("off")) | ("nopti", None) => config.pti = Some(false),
                ("pti", Some("auto")) => config.pti = None,
                ("pti", other) => {
                    let got = other.unwrap_or("nothing");
                    return Err(ConfigError(format!("command line: pti= takes on, off or auto: got {got}")));
                }
                ("mitigations", Some(v)) if v.split(',').any(|w| w == "off") => {
                    config.pti = Some(false);
                    remarks.push("mitigations=off turns page-table isolation off".into());
                }
                ("nopcid", None) => config.nopcid = true,
                ("noinvpcid", None) => config.noinvpcid = true,
                _ => {}
            }
        }
        if !config.pti_built_in && config.pti == Some(true) {
            config.pti = None;
            remarks.push("pti=on has no effect: MITIGATION_PAGE_TABLE_ISOLATION is not set".into());
        }
        if let Some(state) = meltdown {
            let state = state.trim();
            let on = match state {
                "Mitigation: PTI" => true,
                "Not affected" | "Vulnerable" => false,
                _ if state.starts_with("Unknown") => false,
                _ => return Err(ConfigError(format!("meltdown state {state:?} is none that Linux prints"))),
            };
            if on && !config.pti_built_in {
                return Err(ConfigError(format!(
                    "meltdown state {state:?} contradicts {name}: MITIGATION_PAGE_TABLE_ISOLATION is not set"
                )));
            }
            config.pti = Some(on);
            remarks.push(format!(
                "meltdown state {state:?}: page-table isolation is {}",
                if on { "on" } else { "off" }
            ));
        }
        if config.nopcid && config.pti != Some(false) {
            remarks.push("nopcid: every CR3 write flushes all non-global translations".into());
        }
        if config.coalesce_tlbi && config.pti == Some(false) {
            remarks.push(
                "COALESCE_TLBI is inert: page-table isolation is off, so the entry macros are patched out"
                    .into(),
            );
        }
        if config.broadcast_tlb_flush && config.pti == Some(true) {
            remarks.push("INVLPGB is not used: page-table isolation is on (94a17f2dc90b)".into());
        }
        config.check()?;
        Ok(Parsed { config, remarks })
    }

    /// Is page-table isolation on on this CPU?
    pub fn pti_on(&self, cpu: &Cpu) -> bool {
        self.pti_built_in && self.pti.unwrap_or(cpu.meltdown)
    }

    /// What is on, on this CPU with some CPUs isolated or none.
    pub fn features(&self, cpu: &Cpu, isolated: bool) -> Features {
        let pti = self.pti_on(cpu);
        let pcid = cpu.pcid && !self.nopcid;
        let set = |on: bool, f: Feature, features: Features| if on { features.with(f) } else { features };
        let mut features = set(pti, Feature::Pti, Features::NONE);
        features = set(pcid, Feature::Pcid, features);
        features = set(cpu.invpcid && !self.noinvpcid, Feature::Invpcid, features);
        // 94a17f2dc90b: INVLPGB is off while PTI is on (FACTS 2.6).
        let invlpgb = self.broadcast_tlb_flush && cpu.invlpgb.is_some() && !pti;
        features = set(invlpgb, Feature::Invlpgb, features);
        features = set(self.rar && cpu.rar, Feature::Rar, features);
        features = set(self.no_hz_full && isolated, Feature::HousekeepingOverridden, features);
        set(self.context_tracking && isolated, Feature::ContextTracking, features)
    }

    /// Why a policy that needs these features does nothing here; empty if it works.
    pub fn inert(&self, policy: &str, needs: &[String], cpu: &Cpu, isolated: bool) -> Vec<String> {
        let features = self.features(cpu, isolated);
        let mut reasons = Vec::new();
        for need in needs {
            let on = Feature::named(need).is_none_or(|f| features.has(f));
            if !on {
                let why = match need.as_str() {
                    "pti" if !self.pti_built_in => "MITIGATION_PAGE_TABLE_ISOLATION is not set",
                    "pti" if self.pti == Some(false) => "pti=off on the command line",
                    "pti" => "the CPU is not affected by Meltdown, so pti=auto leaves it off",
                    "context_tracking" if !isolated => "no CPU is isolated (nohz_full=)",
                    "context_tracking" => "CONTEXT_TRACKING_USER is not set",
                    "housekeeping_overridden" => "no CPU is isolated (nohz_full=)",
                    "invlpgb" if cpu.invlpgb.is_none() => "the CPU has no INVLPGB",
                    "invlpgb" if self.pti_on(cpu) => "the kernel does not use INVLPGB while PTI is on",
                    "invlpgb" => "the kernel does not use INVLPGB (BROADCAST_TLB_FLUSH, 6.15)",
                    "rar" if !cpu.rar => "the CPU has no remote action requests",
                    "rar" => "no kernel uses remote action requests yet (rar=True to assume one)",
                    "pcid" | "invpcid" => "the CPU or the command line turns it off",
                    _ => "it is off",
                };
                reasons.push(format!("`{policy}` is inert: it needs {need}, and {why}"));
            }
        }
        reasons
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hw::Preset;

    #[test]
    fn pti_follows_the_cpu_unless_told() {
        let affected = Preset::builtin("broadwell-ep-e5-2699v4").unwrap().features;
        let immune = Preset::builtin("cascade-lake-sp").unwrap().features;
        let auto = Config::default();
        assert!(auto.pti_on(&affected) && !auto.pti_on(&immune));
        assert!(Config { pti: Some(true), ..Config::default() }.pti_on(&immune));
        assert!(!Config { pti: Some(false), ..Config::default() }.pti_on(&affected));
    }

    #[test]
    fn a_policy_that_needs_pti_says_why_it_is_inert() {
        let immune = Preset::builtin("cascade-lake-sp").unwrap().features;
        let needs = vec!["pti".to_string()];
        let why = Config::default().inert("coalesce-v7", &needs, &immune, true);
        assert!(why[0].contains("not affected by Meltdown"), "{why:?}");
        assert!(Config { pti: Some(true), ..Config::default() }.inert("x", &needs, &immune, true).is_empty());
    }

    #[test]
    fn a_configuration_file_and_a_command_line_become_one_kernel() {
        let text = "# Linux/x86 6.12\nCONFIG_X86_64=y\nCONFIG_MITIGATION_PAGE_TABLE_ISOLATION=y\nCONFIG_NO_HZ_FULL=y\nCONFIG_CONTEXT_TRACKING_USER=y\n# CONFIG_COALESCE_TLBI is not set\n";
        let p = Config::parse(text, ".config", "quiet pti=on nopcid", None).unwrap();
        assert_eq!(p.config.pti, Some(true));
        assert!(p.config.nopcid && p.config.no_hz_full && !p.config.coalesce_tlbi && !p.config.vmap_stack);
        let off = Config::parse(text, ".config", "mitigations=off", None).unwrap();
        assert_eq!(off.config.pti, Some(false));
        let bad = Config::parse(text, ".config", "pti=maybe", None).unwrap_err();
        assert_eq!(bad.0, "command line: pti= takes on, off or auto: got maybe");
        assert!(Config::parse("hello\n", "x", "", None).is_err());
    }

    #[test]
    fn kconfig_dependencies_are_enforced_with_the_reason() {
        let bad = Config { coalesce_tlbi: true, no_hz_full: false, ..Config::default() };
        assert!(bad.check().unwrap_err().0.contains("NO_HZ_FULL is not set"));
    }

    #[test]
    fn each_remark_is_made_where_it_holds_and_nowhere_else() {
        const BASE: &str = "CONFIG_X86_64=y\nCONFIG_MITIGATION_PAGE_TABLE_ISOLATION=y\nCONFIG_NO_HZ_FULL=y\n\
                            CONFIG_CONTEXT_TRACKING_USER=y\n";
        let remarks = |more: &str, cmdline: &str, meltdown: Option<&str>| {
            Config::parse(&format!("{BASE}{more}"), ".config", cmdline, meltdown).unwrap().remarks
        };
        let (coalesce, invlpgb) = ("CONFIG_COALESCE_TLBI=y\n", "CONFIG_BROADCAST_TLB_FLUSH=y\n");
        let inert =
            "COALESCE_TLBI is inert: page-table isolation is off, so the entry macros are patched out";
        let unused = "INVLPGB is not used: page-table isolation is on (94a17f2dc90b)";
        for (more, cmdline, meltdown, said) in [
            ("", "", None, vec![]),
            (coalesce, "", None, vec![]),
            ("", "pti=off", None, vec![]),
            (coalesce, "pti=on", None, vec![]),
            (coalesce, "nopti", None, vec![inert]),
            ("", "mitigations=auto,off", None, vec!["mitigations=off turns page-table isolation off"]),
            ("", "mitigations=auto", None, vec![]),
            ("", "pti=on", None, vec![]),
            (invlpgb, "", None, vec![]),
            (invlpgb, "pti=off", None, vec![]),
            (invlpgb, "pti=on", None, vec![unused]),
            ("", "nopcid pti=off", None, vec![]),
            ("", "nopcid", None, vec!["nopcid: every CR3 write flushes all non-global translations"]),
            (
                invlpgb,
                "",
                Some("Mitigation: PTI\n"),
                vec!["meltdown state \"Mitigation: PTI\": page-table isolation is on", unused],
            ),
            (
                coalesce,
                "",
                Some("Not affected"),
                vec!["meltdown state \"Not affected\": page-table isolation is off", inert],
            ),
        ] {
            assert_eq!(remarks(more, cmdline, meltdown), said, "{more}{cmdline} {meltdown:?}");
        }
    }
}
