//! `tlbcore._core`: conversions and the export list. Decisions live in the modules it calls.
//! One file per core module; each file's classes and functions are exported below.

#![allow(clippy::needless_pass_by_value)] // PyO3 hands over what it extracted

use pyo3::prelude::*;

mod addresses;
mod binary;
mod calibrate;
mod check;
mod columns;
mod errors;
mod few;
mod hw;
mod perfetto;
mod policy;
mod sim;
mod sweep;
mod trace;

/// The compiled core of tlbcore.
#[pymodule(gil_used = false)]
mod _core {
    /// Version of the crate, which is the version of the package.
    #[pymodule_export]
    #[allow(non_upper_case_globals)]
    const __version__: &str = env!("CARGO_PKG_VERSION");

    #[pymodule_export]
    use super::addresses::{AddressReader, address_columns, address_formats, address_kinds};

    #[pymodule_export]
    use super::binary::{
        binary_census, binary_compare, binary_extract, binary_features, binary_report, binary_unpack,
        binary_verify,
    };

    #[pymodule_export]
    use super::calibrate::{calibrate_run, calibrate_stages};

    #[pymodule_export]
    use super::check::{
        check_accesses, check_assumptions, check_cases, check_implies, check_initiator_of, check_initiators,
        check_joined, check_mutants, check_necessary, check_programs, check_questions, check_repair,
        check_replay, check_replay_timed, check_run, check_tried, check_world, check_worlds, litmus_run,
    };

    #[pymodule_export]
    use super::errors::{
        CheckError, ConfigError, ImageError, PolicyError, SimError, SweepError, TlbError, TlbcoreError,
        TraceError,
    };

    #[pymodule_export]
    use super::hw::{MissCounter, TlbState, event_ops, machine_describe, machine_names, miss_curve};

    #[pymodule_export]
    use super::perfetto::perfetto_write;

    #[pymodule_export]
    use super::policy::{
        policy_based_on, policy_behind, policy_code, policy_kernel, policy_linux, policy_listing,
        policy_names, policy_on_kernel, policy_on_linux, policy_outlook, policy_parse, policy_parsed,
        policy_promela, policy_replace, policy_stated, policy_text, policy_versions,
    };

    #[pymodule_export]
    use super::sim::{
        figures, kernel_check, kernel_inert, kernel_parse, nearest, scenario_check, simulate, statistics,
    };

    #[pymodule_export]
    use super::sweep::{engine, metric_units, student_t, sweep_identify, sweep_run};

    #[pymodule_export]
    use super::trace::{
        LiveMeter, NoiseMeter, TraceData, replay_figures, trace_causes, trace_headline, trace_lines,
        trace_poisson_95, trace_rate_ratio_95, trace_read, trace_replayable, trace_shootdowns,
    };
}
