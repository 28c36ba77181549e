//! Frames that really leave: a generator that sends them out of an interface, and what counts them elsewhere.

use anyhow::{Context, Result, bail};
use aya::{
    Ebpf,
    maps::{Array, MapData, PerCpuArray},
    programs::{TestRun, TestRunAttrs, TestRunOptions, XdpMode},
};

use super::{Script, load_object, orders::Orders, program, take_array, take_map};

/// The driver's programs for one row of links. What is attached stays so as long as this lives.
pub(in crate::bench) struct Live {
    object: Ebpf,
    seen: PerCpuArray<MapData, u64>,
    orders: Array<MapData, Orders>,
    pace: Array<MapData, u64>,
    frame: Vec<u8>,
}

/// Frames counted so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::bench) struct Seen {
    /// By sinks: with the destination they were generated with, and with another one.
    pub(in crate::bench) at_vip: u64,
    pub(in crate::bench) elsewhere: u64,
    /// By the program that sends everything back.
    pub(in crate::bench) bounced: u64,
}

impl Live {
    /// Packets of clients only: the script lists no ends.
    pub(in crate::bench) fn load(script: &Script<'_>) -> Result<Live> {
        let mut object = load_object(0)?;
        for name in [GENERATE, BOUNCE, SINK] {
            program(&mut object, name)?.load().with_context(|| format!("cannot load the program {name}"))?;
        }
        // As in `Driver::load`: maps are taken only now.
        let seen = PerCpuArray::try_from(take_map(&mut object, "seen")?)?;
        let pace = take_array(&mut object, "pace")?;
        let mut orders = take_array(&mut object, "orders")?;
        orders.set(0, script.orders()?, 0)?;
        Ok(Live { object, seen, orders, pace, frame: script.frame(0)? })
    }

    /// In the caller's network namespace: counts frames and takes them off the link.
    pub(in crate::bench) fn attach_sink(&mut self, interface: &str) -> Result<()> {
        self.attach(SINK, interface)
    }

    /// In the caller's network namespace: sends frames back.
    pub(in crate::bench) fn attach_bounce(&mut self, interface: &str) -> Result<()> {
        self.attach(BOUNCE, interface)
    }

    /// Sends the next `frames` frames out of an interface of the caller's network namespace that runs an XDP
    /// program, as fast as sinks see them arrive.
    pub(in crate::bench) fn send(&mut self, interface: u32, frames: u32) -> Result<()> {
        let mut left = frames;
        for _ in 0..STALLS_MAX {
            let before = self.sent()?;
            self.pace.set(STALLED, 0, 0)?;
            self.generate(interface, left)?;
            left -= u32::try_from(self.sent()? - before)?;
            if left == 0 {
                return Ok(());
            }
        }
        bail!("{left} of {frames} frames could not be sent: those before them do not arrive")
    }

    /// At most `frames`: the rest is left when nothing arrives for a while.
    fn generate(&mut self, interface: u32, frames: u32) -> Result<()> {
        let context = context(u32::try_from(self.frame.len())?, interface);
        let options = TestRunOptions {
            data_in: Some(&self.frame),
            ctx_in: Some(&context),
            repeat: frames,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
            ..TestRunOptions::default()
        };
        let generator = program(&mut self.object, GENERATE)?;
        generator.test_run(options).context("BPF_PROG_TEST_RUN with live frames failed")?;
        Ok(())
    }

    fn sent(&self) -> Result<u64> {
        Ok(self.orders.get(&0, 0)?.packets)
    }

    pub(in crate::bench) fn seen(&self) -> Result<Seen> {
        let count = |index: u32| -> Result<u64> { Ok(self.seen.get(&index, 0)?.iter().sum()) };
        Ok(Seen { at_vip: count(0)?, elsewhere: count(1)?, bounced: count(2)? })
    }

    fn attach(&mut self, name: &str, interface: &str) -> Result<()> {
        program(&mut self.object, name)?
            .attach(interface, XdpMode::Driver)
            .with_context(|| format!("cannot attach the program {name} to {interface}"))?;
        Ok(())
    }
}

/// `struct xdp_md` of linux/bpf.h: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
fn context(end: u32, ingress: u32) -> Vec<u8> {
    [0, end, 0, ingress, 0, 0].iter().flat_map(|field| field.to_ne_bytes()).collect()
}

/// Frames sent between two flushes; the generator counts on it.
const BATCH: u32 = 64;
/// Calls that may end early, each after a good part of a tenth of a second without an arrival: others want the
/// processor, too.
const STALLS_MAX: u32 = 100;
/// Entry of the map `pace`.
const STALLED: u32 = 1;
const GENERATE: &str = "generate";
const BOUNCE: &str = "bounce";
const SINK: &str = "sink";
