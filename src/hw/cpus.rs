//! Many accesses, switches and invalidations on many CPUs at once: the array interface of the model. What is carried out
//! stands in `drive.rs`.

use super::event::{EVENT_BYTES, Rules};
use super::fast::flow::{self, Buffers};
use super::tlb::{Counters, Tlb};
use super::vectors;
use super::{Contexts, Geometry, Kind, PageSize, Pcid, TlbError};

/// The TLBs of several CPUs of one shape.
#[derive(Clone, Debug)]
pub struct Cpus {
    pub(super) tlbs: Vec<Tlb>,
    pub(super) vectors: bool,
    pub(super) scratch: Scratch,
}

/// What accesses are worked on in, made when first needed; no part of what the TLBs are.
#[derive(Debug, Default)]
pub(super) struct Scratch(Option<Box<Buffers>>);

impl Scratch {
    pub(super) fn buffers(&mut self) -> &mut Buffers {
        self.0.get_or_insert_with(Buffers::new)
    }

    /// [`flow::flows`], which the shape of the TLBs decides, asked once.
    pub(super) fn flows(&mut self, tlb: &Tlb, giant: bool) -> bool {
        *self.buffers().flows[usize::from(giant)].get_or_insert_with(|| flow::flows(tlb, giant))
    }
}

impl Clone for Scratch {
    fn clone(&self) -> Self {
        Scratch(None)
    }
}

/// How they are computed is no part of what they are.
impl PartialEq for Cpus {
    fn eq(&self, other: &Self) -> bool {
        self.tlbs == other.tlbs
    }
}

impl Cpus {
    /// Empty TLBs.
    pub fn new(geometry: &std::sync::Arc<Geometry>, cpus: usize) -> Result<Self, TlbError> {
        if cpus == 0 || cpus > 4096 {
            return Err(TlbError::shape("cpus", format!("must be 1 to 4096: got {cpus}")));
        }
        Ok(Self::from_tlbs(vec![Tlb::new(std::sync::Arc::clone(geometry)); cpus]))
    }

    /// From TLBs of one geometry.
    pub fn from_tlbs(tlbs: Vec<Tlb>) -> Self {
        Cpus { tlbs, vectors: vectors::available(), scratch: Scratch::default() }
    }

    /// Leaves the vector loops out, or takes them again where the CPU runs them. Results are the same: this is for
    /// comparing speeds, and the scalar loops with the vector loops.
    pub fn set_vectors(&mut self, vectors: bool) {
        self.vectors = vectors && vectors::available();
    }

    /// Whether the vector loops run.
    pub fn vectors(&self) -> bool {
        self.vectors
    }

    /// One TLB per CPU.
    pub fn tlbs(&self) -> &[Tlb] {
        &self.tlbs
    }

    /// One TLB per CPU.
    pub fn tlbs_mut(&mut self) -> &mut [Tlb] {
        &mut self.tlbs
    }

    /// Sum of the counters.
    pub fn counters(&self) -> Counters {
        self.tlbs.iter().fold(Counters::default(), |mut sum, tlb| {
            sum.add(tlb.counters());
            sum
        })
    }

    fn held(&self) -> [[bool; 3]; 3] {
        PageSize::ALL.map(|size| Kind::ALL.map(|kind| self.tlbs[0].check_held(size, kind).is_ok()))
    }

    /// Refuses accesses that no CPU could make; [`Cpus::access`] then looks at the pages only.
    pub fn check_access(
        &self,
        cpu: usize,
        vpns: &[u64],
        contexts: Contexts<'_>,
        kind: Kind,
        size: PageSize,
    ) -> Result<(), TlbError> {
        if cpu >= self.tlbs.len() {
            return Err(TlbError::shape("cpu", format!("must be below {}: got {cpu}", self.tlbs.len())));
        }
        self.tlbs[0].check_held(size, kind)?;
        if let Contexts::Each(pcids) = contexts {
            if pcids.len() != vpns.len() {
                let rule = format!("must be as long as vpn ({}): got {}", vpns.len(), pcids.len());
                return Err(TlbError::shape("pcid", rule));
            }
            Pcid::check(pcids)?;
        }
        Ok(())
    }

    /// What events must be to run here.
    pub(super) fn rules(&self) -> Rules {
        Rules { cpus: self.tlbs.len(), held: self.held() }
    }

    /// Refuses events that no CPU could execute.
    pub fn check_events(&self, bytes: &[u8]) -> Result<(), TlbError> {
        let (events, rest) = bytes.as_chunks::<EVENT_BYTES>();
        if !rest.is_empty() {
            return Err(TlbError::shape("events", format!("must be whole events of {EVENT_BYTES} bytes")));
        }
        self.rules().check(events, 0)
    }
}
