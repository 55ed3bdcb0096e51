//! TLBs and machine presets for Python.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use numpy::{PyArray1, PyReadonlyArray1, PyReadwriteArray1};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyInt, PyString};

use super::errors::TlbError as PyTlbError;
use super::few::few_pages;
use crate::hw::cpus::Cpus;
use crate::hw::curve::{Growing, Question, Running};
use crate::hw::event::{EVENT_BYTES, OPS};
use crate::hw::preset::{COSTS, Preset};
use crate::hw::tlb::Counters;
use crate::hw::{Contexts, Geometry, Kind, PageSize, Pcid, Tlb, TlbError};

/// About 50 ms of accesses: Ctrl-C feels immediate and attaching costs nothing.
const BLOCK: usize = 1 << 22;
/// So many events are looked at before the first one runs.
const FEW_EVENTS: usize = 1 << 14;
/// Fewer accesses are over before the interpreter could be released and taken again.
const BRIEF: usize = 256;

fn preset(machine: &str, text: Option<&str>) -> PyResult<Arc<Preset>> {
    Ok(match text {
        Some(text) => Arc::new(Preset::parse(text, machine)?),
        None => Preset::builtin(machine)?,
    })
}

/// Names of the built-in machines, with titles and aliases.
#[pyfunction]
pub(super) fn machine_names() -> PyResult<Vec<(String, String, Vec<String>)>> {
    Preset::names()
        .into_iter()
        .map(|name| {
            let preset = Preset::builtin(name)?;
            Ok((preset.name.clone(), preset.title.clone(), preset.aliases.clone()))
        })
        .collect()
}

/// One machine: a built-in one by name, or a preset text whose origin is `machine`.
#[pyfunction]
#[pyo3(signature = (machine, text=None))]
pub(super) fn machine_describe<'py>(
    py: Python<'py>,
    machine: &str,
    text: Option<&str>,
) -> PyResult<Bound<'py, PyDict>> {
    let preset = preset(machine, text)?;
    let about = PyDict::new(py);
    about.set_item("name", &preset.name)?;
    about.set_item("title", &preset.title)?;
    about.set_item("aliases", &preset.aliases)?;
    about.set_item("vendor", &preset.vendor)?;
    about.set_item("signature", &preset.signature)?;
    about.set_item("mhz", preset.mhz)?;
    let f = preset.features;
    about.set_item("pcid", f.pcid)?;
    about.set_item("invpcid", f.invpcid)?;
    about.set_item("invlpgb_extra", f.invlpgb)?;
    about.set_item("rar", f.rar)?;
    about.set_item("meltdown", f.meltdown)?;
    about.set_item("table_levels", f.table_levels)?;
    let facts: Vec<_> = preset
        .facts
        .iter()
        .map(|f| (f.key.as_str(), f.value.as_str(), f.mark.name(), f.source.as_str()))
        .collect();
    about.set_item("facts", facts)?;
    let costs: Vec<_> = COSTS
        .iter()
        .filter_map(|(name, what)| {
            let figure = preset.costs.get(name)?;
            Some((*name, figure.cycles, figure.low, figure.high, figure.mark.name(), *what))
        })
        .collect();
    about.set_item("costs", costs)?;
    about.set_item("levels", levels_of(py, &preset.geometry)?)?;
    let psc = preset.geometry.psc();
    about.set_item("psc", psc.sizes().to_vec())?;
    Ok(about)
}

/// A geometry as plain Python data.
fn levels_of<'py>(py: Python<'py>, geometry: &Geometry) -> PyResult<Vec<Bound<'py, PyDict>>> {
    let mut levels = Vec::new();
    for level in geometry.levels() {
        let shown = PyDict::new(py);
        shown.set_item("name", &level.name)?;
        shown.set_item("inclusive", level.inclusive)?;
        let mut structures = Vec::new();
        for s in &level.structures {
            let one = PyDict::new(py);
            one.set_item("name", &s.name)?;
            one.set_item("sets", s.sets)?;
            one.set_item("ways", s.ways)?;
            one.set_item("sizes", s.sizes.iter().map(|size| size.name()).collect::<Vec<_>>())?;
            one.set_item("kinds", s.kinds.iter().map(|kind| kind.name()).collect::<Vec<_>>())?;
            let (index, replacement, groups, seed) = s.names();
            one.set_item("index", index)?;
            one.set_item("replacement", replacement)?;
            one.set_item("groups", groups)?;
            one.set_item("seed", seed)?;
            one.set_item("pcid_slots", s.pcid_slots)?;
            one.set_item("smashes_1g", s.smashes_1g)?;
            structures.push(one);
        }
        shown.set_item("structures", structures)?;
        levels.push(shown);
    }
    Ok(levels)
}

/// Numbers, names and meanings of event ops.
#[pyfunction]
pub(super) fn event_ops() -> Vec<(u8, &'static str, &'static str)> {
    OPS.to_vec()
}

/// Misses of many LRU TLBs in one pass, shape (sets, ways).
#[pyfunction]
#[allow(clippy::needless_pass_by_value)] // PyO3 hands over what it extracted
pub(super) fn miss_curve<'py>(
    py: Python<'py>,
    vpn: PyReadonlyArray1<'py, u64>,
    pcid: Option<PyReadonlyArray1<'py, u16>>,
    flushes: PyReadonlyArray1<'py, u64>,
    sets: Vec<u32>,
    ways: usize,
) -> PyResult<Vec<Vec<u64>>> {
    let pcids = pcid.as_ref().map(PyReadonlyArray1::as_slice).transpose()?;
    let flushes = flushes.as_slice()?.to_vec(); // places in the others, which nobody may change meanwhile
    let question = Question { vpns: vpn.as_slice()?, pcids, flushes: &flushes, sets: &sets, ways };
    let mut running = py.detach(|| Running::new(&question))?;
    while py.detach(|| running.advance(BLOCK / 4))? {
        py.check_signals()?;
    }
    Ok(running.misses())
}

/// Misses of many LRU TLBs over pages that come in pieces.
#[pyclass(module = "tlbcore._core")]
pub(super) struct MissCounter {
    growing: Growing,
}

#[pymethods]
impl MissCounter {
    #[new]
    fn new(sets: Vec<u32>, ways: usize) -> PyResult<Self> {
        Ok(Self { growing: Growing::new(&sets, ways)? })
    }

    /// Takes further pages.
    fn feed(&mut self, py: Python<'_>, vpn: PyReadonlyArray1<'_, u64>) -> PyResult<()> {
        for piece in vpn.as_slice()?.chunks(BLOCK / 4) {
            py.detach(|| self.growing.feed(piece))?;
            py.check_signals()?;
        }
        Ok(())
    }

    /// Accesses so far, and misses, shape (sets, ways).
    fn counts(&self) -> (u64, Vec<Vec<u64>>) {
        (self.growing.taken(), self.growing.misses())
    }
}

/// TLBs of one machine: the state behind `tlbcore.Tlb`.
#[pyclass(frozen, module = "tlbcore._core")]
pub(super) struct TlbState {
    geometry: Arc<Geometry>,
    cpus: Mutex<Cpus>,
    /// Names of the counters and a table of zeros, made once: a call on one page is mostly its dict.
    names: PyOnceLock<(Vec<Py<PyString>>, Py<PyDict>)>,
}

impl TlbState {
    fn new(cpus: Cpus) -> Self {
        TlbState {
            geometry: Arc::clone(cpus.tlbs()[0].geometry()),
            cpus: Mutex::new(cpus),
            names: PyOnceLock::new(),
        }
    }

    /// Counts under their names.
    fn table<'py>(&self, py: Python<'py>, counts: &Counters) -> PyResult<Bound<'py, PyDict>> {
        let levels = self.geometry.levels();
        let (names, zeros) = self.names.get_or_try_init(py, || {
            let hits = levels.iter().map(|level| format!("{}_hits", level.name));
            let rest = "walks pde_hits pdpte_hits pml4e_hits pml5e_hits walk_loads stale_hits stale_walks switches invalidated";
            let names: Vec<_> = std::iter::once("accesses".to_owned())
                .chain(hits)
                .chain(rest.split(' ').map(str::to_owned))
                .map(|name| PyString::intern(py, &name).unbind())
                .collect();
            let zeros = PyDict::new(py);
            for name in &names {
                zeros.set_item(name.bind(py), 0)?;
            }
            Ok::<_, PyErr>((names, zeros.unbind()))
        })?;
        let c = counts;
        let [pde, pdpte, pml4e, pml5e] = c.psc_hits;
        let rest = [
            c.walks,
            pde,
            pdpte,
            pml4e,
            pml5e,
            c.walk_loads,
            c.stale_hits,
            c.stale_walks,
            c.switches,
            c.invalidated,
        ];
        let values = std::iter::once(c.accesses).chain(c.hits[..levels.len()].iter().copied()).chain(rest);
        let table = zeros.bind(py).copy()?;
        for (name, value) in names.iter().zip(values).filter(|(_, value)| *value > 0) {
            table.set_item(name.bind(py), value)?;
        }
        Ok(table)
    }

    /// The state is one: two threads may not drive it at once, and waiting would hide the mistake.
    fn borrow(&self) -> PyResult<MutexGuard<'_, Cpus>> {
        match self.cpus.try_lock() {
            Ok(cpus) => Ok(cpus),
            Err(TryLockError::Poisoned(poisoned)) => Ok(PoisonError::into_inner(poisoned)),
            Err(TryLockError::WouldBlock) => {
                Err(PyTlbError::new_err("this Tlb is in use by another thread: give each thread its own"))
            }
        }
    }
}

/// Counts under their names, and the level that answered each access if asked for.
type Counted<'py> = (Bound<'py, PyDict>, Option<Bound<'py, PyArray1<u8>>>);

/// The size and kind that Python named.
fn shape_of(page_size: u64, kind: &str) -> PyResult<(PageSize, Kind)> {
    let size = PageSize::from_bytes(page_size)?;
    let kind = Kind::from_name(kind).ok_or_else(|| {
        PyTlbError::new_err(format!("kind must be \"load\", \"store\" or \"fetch\": got {kind:?}"))
    })?;
    Ok((size, kind))
}

/// One context for all accesses, or one each.
#[derive(FromPyObject)]
pub(super) enum PyContexts<'py> {
    One(u64),
    Each(PyReadonlyArray1<'py, u16>),
}

#[pymethods]
impl TlbState {
    #[new]
    #[pyo3(signature = (machine, text=None, cpus=1, smt=false, ideal_pcid=false))]
    fn py_new(machine: &str, text: Option<&str>, cpus: usize, smt: bool, ideal_pcid: bool) -> PyResult<Self> {
        let preset = preset(machine, text)?;
        let mut geometry = Arc::clone(&preset.geometry);
        if smt {
            geometry = Arc::new(geometry.with_smt());
        }
        if ideal_pcid {
            geometry = Arc::new(geometry.without_pcid_slots());
        }
        Ok(TlbState::new(Cpus::new(&geometry, cpus)?))
    }

    /// The shape, as plain data.
    fn levels<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        levels_of(py, &self.geometry)
    }

    /// Accesses on one CPU; returns the counts of this call.
    #[pyo3(signature = (vpn, pcid, kind, page_size, cpu, levels=None))]
    #[allow(clippy::too_many_arguments)] // one Python call
    fn access<'py>(
        &self,
        py: Python<'py>,
        vpn: PyReadonlyArray1<'py, u64>,
        pcid: PyContexts<'py>,
        kind: &str,
        page_size: u64,
        cpu: usize,
        levels: Option<PyReadwriteArray1<'py, u8>>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let (size, kind) = shape_of(page_size, kind)?;
        let vpns = vpn.as_slice()?;
        let mut levels = levels;
        let mut out = levels.as_mut().map(|levels| levels.as_slice_mut()).transpose()?;
        let each;
        let contexts = match &pcid {
            PyContexts::One(pcid) => Contexts::One(Pcid::new(*pcid)?),
            PyContexts::Each(pcids) => {
                each = pcids.as_slice()?;
                Contexts::Each(each)
            }
        };
        let mut cpus = self.borrow()?;
        if vpns.len() < BRIEF {
            cpus.check_access(cpu, vpns, contexts, kind, size)?;
            let before = cpus.tlbs()[cpu].counters().clone();
            cpus.access(cpu, vpns, contexts, kind, size, out, 0)?;
            return self.table(py, &cpus.tlbs()[cpu].counters().since(&before));
        }
        {
            let state: &Cpus = &cpus;
            py.detach(|| state.check_access(cpu, vpns, contexts, kind, size))?;
        }
        let before = cpus.counters();
        // Each block changes all or nothing; a bad page in a later one undoes the earlier ones.
        let saved = (vpns.len() > BLOCK).then(|| cpus.tlbs()[cpu].clone());
        for start in (0..vpns.len()).step_by(BLOCK) {
            let end = (start + BLOCK).min(vpns.len());
            let contexts = contexts.part(start..end);
            let out = out.as_deref_mut().map(|out| &mut out[start..end]);
            let state: &mut Cpus = &mut cpus;
            let done = py.detach(|| state.access(cpu, &vpns[start..end], contexts, kind, size, out, start));
            if let Err(error) = done {
                if let Some(saved) = saved {
                    cpus.tlbs_mut()[cpu] = saved;
                }
                return Err(error.into());
            }
            py.check_signals()?;
        }
        self.table(py, &cpus.counters().since(&before))
    }

    /// Few accesses, as they mostly come: one array of integers in a row, one context. Returns their counts and, if wanted,
    /// the levels; `None`, with nothing changed, for all else and for what is to be refused: [`TlbState::access`] says why.
    #[allow(clippy::too_many_arguments)] // one Python call
    fn access_few<'py>(
        &self,
        py: Python<'py>,
        vpn: &Bound<'py, PyAny>,
        pcid: &Bound<'py, PyAny>,
        kind: &str,
        page_size: &Bound<'py, PyAny>,
        cpu: &Bound<'py, PyAny>,
        counts_only: &Bound<'py, PyAny>,
    ) -> PyResult<Option<Counted<'py>>> {
        let counts_only = counts_only.is_truthy()?;
        let number = |given: &Bound<'py, PyAny>| given.cast_exact::<PyInt>().ok()?.extract::<u64>().ok();
        let (Some(pcid), Some(page_size), Some(cpu)) = (number(pcid), number(page_size), number(cpu)) else {
            return Ok(None);
        };
        let (Ok(pcid), Ok((size, kind))) = (Pcid::new(pcid), shape_of(page_size, kind)) else {
            return Ok(None);
        };
        let Some(few) = few_pages(vpn) else { return Ok(None) };
        let (vpns, count, cpu) = (few.pages(), few.pages().len(), cpu as usize);
        let mut cpus = self.borrow()?;
        if cpus.check_access(cpu, vpns, Contexts::One(pcid), kind, size).is_err() {
            return Ok(None);
        }
        let (mut brief, mut longer) = ([0; BRIEF], Vec::new());
        let levels = if counts_only || count <= BRIEF {
            &mut brief[..count.min(BRIEF)]
        } else {
            longer.resize(count, 0);
            &mut longer[..]
        };
        let out = (!counts_only).then_some(&mut *levels);
        let before = cpus.tlbs()[cpu].counters().clone();
        if cpus.access(cpu, vpns, Contexts::One(pcid), kind, size, out, 0).is_err() {
            return Ok(None);
        }
        let counted = self.table(py, &cpus.tlbs()[cpu].counters().since(&before))?;
        Ok(Some((counted, (!counts_only).then(|| PyArray1::from_slice(py, levels)))))
    }

    /// Events on many CPUs, as bytes; returns the counts of this call.
    #[pyo3(signature = (events, levels=None))]
    fn run<'py>(
        &self,
        py: Python<'py>,
        events: PyReadonlyArray1<'py, u8>,
        levels: Option<PyReadwriteArray1<'py, u8>>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let bytes = events.as_slice()?;
        let mut levels = levels;
        let mut out = levels.as_mut().map(|levels| levels.as_slice_mut()).transpose()?;
        let mut cpus = self.borrow()?;
        // A refused call changes nothing: few events are all looked at first, of many the old state is kept.
        let saved = if bytes.len() > FEW_EVENTS * EVENT_BYTES && bytes.len().is_multiple_of(EVENT_BYTES) {
            Some(cpus.clone())
        } else {
            cpus.check_events(bytes)?;
            None
        };
        let before = cpus.counters();
        let mut ran = Ok(());
        for start in (0..bytes.len()).step_by(BLOCK * EVENT_BYTES / 2) {
            let end = (start + BLOCK * EVENT_BYTES / 2).min(bytes.len());
            let first = start / EVENT_BYTES;
            let out = out.as_deref_mut().map(|out| &mut out[first..end / EVENT_BYTES]);
            let state: &mut Cpus = &mut cpus;
            ran = py.detach(|| state.run(&bytes[start..end], out, first));
            if ran.is_err() {
                break;
            }
            py.check_signals()?;
        }
        if let (Err(_), Some(saved)) = (&ran, saved) {
            *cpus = saved;
        }
        ran?;
        self.table(py, &cpus.counters().since(&before))
    }

    /// Leaves the vector loops out, or takes them again; results are the same. For comparing speeds.
    fn set_vectors(&self, vectors: bool) -> PyResult<()> {
        self.borrow()?.set_vectors(vectors);
        Ok(())
    }

    /// Counts since the last reset, of one CPU or of all.
    #[pyo3(signature = (cpu=None))]
    fn counters<'py>(&self, py: Python<'py>, cpu: Option<usize>) -> PyResult<Bound<'py, PyDict>> {
        let cpus = self.borrow()?;
        match cpu {
            None => self.table(py, &cpus.counters()),
            Some(cpu) => {
                let tlb = cpus.tlbs().get(cpu).ok_or_else(|| {
                    TlbError::shape("cpu", format!("must be below {}: got {cpu}", cpus.tlbs().len()))
                })?;
                self.table(py, tlb.counters())
            }
        }
    }

    /// Columns of everything cached: cpu, level, structure, set, way, vpn, page size, pcid, global, stale.
    fn entries<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let cpus = self.borrow()?;
        let all: Vec<_> = cpus
            .tlbs()
            .iter()
            .enumerate()
            .flat_map(|(cpu, tlb)| tlb.entries().into_iter().map(move |entry| (cpu, entry)))
            .collect();
        let table = PyDict::new(py);
        macro_rules! column {
            ($name:literal, $type:ty, |$cpu:ident, $entry:ident| $value:expr) => {
                let values: Vec<$type> = all.iter().map(|($cpu, $entry)| $value).collect();
                table.set_item($name, PyArray1::from_vec(py, values))?;
            };
        }
        column!("cpu", u16, |cpu, _e| *cpu as u16);
        column!("level", u8, |_c, entry| entry.level);
        column!("structure", u8, |_c, entry| entry.structure);
        column!("set", u32, |_c, entry| entry.set);
        column!("way", u32, |_c, entry| entry.way);
        column!("vpn", u64, |_c, entry| entry.vpn.of_canonical());
        column!("page_size_bytes", u64, |_c, entry| entry.size.pages() << 12);
        column!("pcid", u16, |_c, entry| entry.pcid.map_or(0, |pcid| pcid.0));
        column!("global", bool, |_c, entry| entry.pcid.is_none());
        column!("stale", bool, |_c, entry| entry.stale);
        Ok(table)
    }

    /// Cached paging-structure entries of one CPU: (level, first page, pcid, stale).
    fn psc_entries(&self, cpu: usize) -> PyResult<Vec<(u8, u64, u16, bool)>> {
        let cpus = self.borrow()?;
        let tlb = cpus.tlbs().get(cpu).ok_or_else(|| {
            TlbError::shape("cpu", format!("must be below {}: got {cpu}", cpus.tlbs().len()))
        })?;
        Ok(tlb
            .psc_entries()
            .into_iter()
            .map(|(level, first, pcid, stale)| (level, first.0, pcid.0, stale))
            .collect())
    }

    /// Empties every TLB and zeroes the counters.
    fn reset(&self) -> PyResult<()> {
        self.borrow()?.tlbs_mut().iter_mut().for_each(Tlb::reset);
        Ok(())
    }

    /// Number of CPUs.
    fn cpus(&self) -> PyResult<usize> {
        Ok(self.borrow()?.tlbs().len())
    }

    /// Whether contents and counters are the same.
    fn same(&self, other: &Self) -> PyResult<bool> {
        if std::ptr::eq(self, other) {
            return Ok(true);
        }
        let (mine, theirs) = (self.borrow()?, other.borrow()?);
        Ok(*mine == *theirs)
    }

    /// The state as bytes, for pickling.
    fn save<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let saved: Vec<String> = self.borrow()?.tlbs().iter().map(Tlb::save).collect();
        Ok(PyBytes::new(py, saved.join("\n").as_bytes()))
    }

    /// A saved state, in the shape this one has.
    fn restored(&self, saved: &str) -> PyResult<Self> {
        let tlbs = saved
            .lines()
            .map(|line| Tlb::restore(Arc::clone(&self.geometry), line))
            .collect::<Result<Vec<_>, _>>()?;
        if tlbs.is_empty() {
            return Err(PyTlbError::new_err("saved state: must hold at least one CPU"));
        }
        Ok(TlbState::new(Cpus::from_tlbs(tlbs)))
    }
}
