//! Which records other nodes have not heard of yet, or not for a while.

use lb_common::{
    flow::{FIN, FlowKey, OPENING, Owner, RST, Ticks, UNCONFIRMED},
    hash,
    net::Family,
};

/// What was last told of each place in a flow table.
#[derive(Debug, Default)]
pub struct Outlet {
    told: Vec<Told>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Told {
    /// Of the key, the server and what the bits mean; 0: nothing.
    digest: u32,
    /// The record's stamp then.
    seen: Ticks,
}

impl Outlet {
    /// Whether the record at `index` is news. It counts as told from here on. A record that goes on living is told
    /// again eight times in its idle time, so that one that was lost is missed for no longer.
    pub fn is_news(&mut self, index: u32, digest: u32, seen: Ticks, idle_ticks: u32) -> bool {
        let index = index as usize;
        if self.told.len() <= index {
            self.told.resize(index + 1, Told::default());
        }
        let told = &mut self.told[index];
        let refresh = (idle_ticks / 8).max(1);
        let news = told.digest != digest || seen.since(told.seen) >= refresh;
        if news {
            *told = Told { digest, seen };
        }
        news
    }
}

/// Never 0.
pub fn digest<F: Family>(key: &FlowKey<F>, owner: &Owner) -> u32 {
    let bits = owner.state & (OPENING | UNCONFIRMED | FIN | RST);
    let hash = hash::record(u64::from(owner.server) << 32 | u64::from(bits), key.addresses(), key.rest());
    hash as u32 | 1
}

#[cfg(test)]
mod tests {
    use lb_common::net::{Be16, Be32, V4};

    use super::*;

    #[test]
    fn news_are_told_once_and_again_when_they_change_or_age() {
        let tuple = lb_common::flow::Tuple::<V4> {
            source: Be32(1),
            destination: Be32(2),
            source_port: Be16(3),
            destination_port: Be16(4),
        };
        let key = FlowKey::new(tuple, 6);
        let owner = |state| Owner { server: 7, seen: Ticks(100), state };
        let mut outlet = Outlet::default();
        let open = digest(&key, &owner(0));
        assert!(outlet.is_news(5, open, Ticks(100), 80));
        assert!(!outlet.is_news(5, open, Ticks(100), 80), "told");
        assert!(!outlet.is_news(5, open, Ticks(109), 80), "still fresh there");
        assert!(outlet.is_news(5, open, Ticks(110), 80), "an eighth of its time passed");
        assert!(outlet.is_news(5, digest(&key, &owner(FIN)), Ticks(110), 80), "it closes");
        assert!(outlet.is_news(6, open, Ticks(110), 80), "another place");
    }
}
