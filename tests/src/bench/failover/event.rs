//! What happens to the node that has the address, and how soon somebody must answer again.

use serde::Serialize;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    Stop,
    StopFast,
    Vanish,
    VanishFast,
    LinkDown,
    LinkDownFast,
    Bounce,
    Kill,
    KillFast,
    Service,
    Return,
    ReturnFast,
}

/// Of the adverts; priorities are 100 and 80.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timing {
    /// Version 2, an advert a second.
    Second,
    /// Version 3, an advert every 10 ms.
    Fast,
}

impl Event {
    pub fn title(self) -> &'static str {
        match self {
            Event::Stop => "graceful stop",
            Event::StopFast => "graceful stop, 10 ms adverts",
            Event::Vanish => "host vanishes",
            Event::VanishFast => "host vanishes, 10 ms adverts",
            Event::LinkDown => "link down at the master",
            Event::LinkDownFast => "link down at the master, 10 ms adverts",
            Event::Bounce => "200 ms link bounce at the master",
            Event::Kill => "daemon killed (-9)",
            Event::KillFast => "daemon killed (-9), 10 ms adverts",
            Event::Service => "service dies",
            Event::Return => "fail-back",
            Event::ReturnFast => "fail-back, 10 ms adverts",
        }
    }

    pub fn timing(self) -> Timing {
        match self {
            Event::StopFast
            | Event::VanishFast
            | Event::LinkDownFast
            | Event::KillFast
            | Event::ReturnFast => Timing::Fast,
            Event::Stop
            | Event::Vanish
            | Event::LinkDown
            | Event::Bounce
            | Event::Kill
            | Event::Service
            | Event::Return => Timing::Second,
        }
    }

    /// The longest outage that Steelyard may have, and the one it aims for, in milliseconds.
    pub(super) fn bars(self) -> (f64, f64) {
        match self {
            Event::Stop => (20.0, 5.0),
            Event::StopFast => (10.0, 3.0),
            Event::Vanish | Event::LinkDown => (MASTER_DOWN_MS, 150.0),
            Event::VanishFast | Event::LinkDownFast => (41.0, 35.0),
            Event::Bounce => (300.0, 300.0),
            Event::Kill => (MASTER_DOWN_MS, 150.0),
            Event::KillFast => (41.0, 41.0),
            Event::Service => (200.0, 100.0),
            Event::Return | Event::ReturnFast => (5.0, 0.0),
        }
    }
}

/// Of priority 80 with an advert a second (RFC 3768).
const MASTER_DOWN_MS: f64 = 3_687.5;
