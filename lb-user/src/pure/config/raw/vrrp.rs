//! `[[vrrp]]` and what belongs to it, as typed.

use toml::de::DeValue;

use super::{Field, List, Number, Text, reader::Reader};
use crate::pure::config::error::{Span, Spanned};

#[derive(Default)]
pub struct Router {
    /// Each key with the place of its value.
    pub typed: Vec<(&'static str, Span)>,
    pub name: Field<Text>,
    pub interface: Field<Text>,
    pub vrid: Field<Number>,
    pub family: Field<Text>,
    pub version: Field<Number>,
    pub priority: Field<Number>,
    pub state: Field<Text>,
    pub timing: Timing,
    pub estate: Estate,
    pub cast: Cast,
    pub auth: Auth,
    pub wire: Wire,
    pub virtual_mac: Field<Spanned<VirtualMac>>,
    pub garp: Option<Spanned<Garp>>,
    pub track_interfaces: Field<Vec<Spanned<TrackInterface>>>,
    pub track: Field<Vec<Spanned<Track>>>,
    pub hooks: Hooks,
}

#[derive(Default)]
pub struct Timing {
    pub advert_interval: Field<Text>,
    pub down_timer_adverts: Field<Number>,
    pub preempt: Field<bool>,
    pub preempt_delay: Field<Text>,
    pub start_delay: Field<Text>,
    pub hand_over: Field<bool>,
    pub refuse_on_mismatch: Field<bool>,
}

/// What it has while it is Active.
#[derive(Default)]
pub struct Estate {
    pub addresses: Field<Vec<Spanned<Address>>>,
    pub excluded_addresses: Field<Vec<Spanned<Address>>>,
    pub routes: Field<Vec<Spanned<Route>>>,
    pub rules: Field<Vec<Spanned<Rule>>>,
}

/// Between whom adverts go.
#[derive(Default)]
pub struct Cast {
    pub unicast_peers: Field<Vec<Spanned<Peer>>>,
    pub source: Field<Text>,
    pub multicast_group: Field<Text>,
}

#[derive(Default)]
pub struct Auth {
    pub pass: Field<Text>,
    pub pass_file: Field<Text>,
    pub hmac: Field<Vec<Spanned<HmacKey>>>,
    pub hmac_mode: Field<Text>,
}

#[derive(Default)]
pub struct Wire {
    pub checksum: Field<Text>,
    pub address_check: Field<Text>,
}

#[derive(Default)]
pub struct Address {
    pub address: Field<Text>,
    pub dev: Field<Text>,
    pub label: Field<Text>,
    pub scope: Field<Text>,
    pub broadcast: Field<Text>,
}

#[derive(Default)]
pub struct Route {
    pub to: Field<Text>,
    pub via: Field<Text>,
    pub dev: Field<Text>,
    pub src: Field<Text>,
    pub table: Field<Number>,
    pub metric: Field<Number>,
    pub scope: Field<Text>,
}

#[derive(Default)]
pub struct Rule {
    pub from: Field<Text>,
    pub to: Field<Text>,
    pub iif: Field<Text>,
    pub table: Field<Number>,
    pub priority: Field<Number>,
}

#[derive(Default)]
pub struct Peer {
    pub address: Field<Text>,
    pub ttl_min: Field<Number>,
    pub ttl_max: Field<Number>,
}

#[derive(Default)]
pub struct HmacKey {
    pub id: Field<Number>,
    pub key: Field<Text>,
    pub key_file: Field<Text>,
}

#[derive(Default)]
pub struct VirtualMac {
    /// `virtual_mac = false`.
    pub is_off: bool,
    pub name: Field<Text>,
    pub transmit_base: Field<bool>,
}

#[derive(Default)]
pub struct Garp {
    pub times: Field<List>,
    pub delay: Field<Text>,
    pub refresh: Field<Text>,
    pub spacing: Field<Text>,
}

#[derive(Default)]
pub struct TrackInterface {
    pub interface: Field<Text>,
    pub weight: Field<Number>,
    pub reverse: Field<bool>,
}

/// One of the first six.
#[derive(Default)]
pub struct Track {
    pub interface: Field<Text>,
    pub script: Field<Text>,
    pub process: Field<Text>,
    pub file: Field<Text>,
    pub service: Field<Text>,
    pub datapath: Field<bool>,
    pub weight: Field<Number>,
    pub reverse: Field<bool>,
}

#[derive(Default)]
pub struct Hooks {
    pub any: Field<List>,
    pub master: Field<List>,
    pub backup: Field<List>,
    pub fault: Field<List>,
    pub stop: Field<List>,
    pub deleted: Field<List>,
    pub lower_priority: Field<List>,
    pub user: Field<Text>,
    pub mail: Field<bool>,
}

#[derive(Default)]
pub struct Group {
    pub name: Field<Text>,
    pub members: Field<List>,
    pub track_interfaces: Field<Vec<Spanned<TrackInterface>>>,
    pub track: Field<Vec<Spanned<Track>>>,
    pub hooks: Hooks,
}

#[derive(Default)]
pub struct Script {
    pub name: Field<Text>,
    pub command: Field<List>,
    pub interval: Field<Text>,
    pub timeout: Field<Text>,
    pub rise: Field<Number>,
    pub fall: Field<Number>,
    pub user: Field<Text>,
    pub init_fail: Field<bool>,
}

#[derive(Default)]
pub struct Process {
    pub name: Field<Text>,
    pub process: Field<Text>,
    pub quorum: Field<Number>,
    pub quorum_max: Field<Number>,
    pub delay: Field<Text>,
}

#[derive(Default)]
pub struct TrackFile {
    pub name: Field<Text>,
    pub file: Field<Text>,
    pub interval: Field<Text>,
}

impl Router {
    pub(super) fn read(mut table: Reader<'_, '_>) -> Router {
        let mut router = Router {
            typed: Vec::new(),
            name: table.text("name", "\"VI_1\""),
            interface: table.text("interface", "\"eth0\""),
            vrid: table.number("vrid", "51"),
            family: table.text("family", "\"ipv4\""),
            version: table.number("version", "3"),
            priority: table.number("priority", "100"),
            state: table.text("state", "\"backup\""),
            timing: Timing::read(&mut table),
            estate: Estate::read(&mut table),
            cast: Cast::read(&mut table),
            auth: Auth::read(&mut table),
            wire: Wire {
                checksum: table.text("checksum", "\"auto\""),
                address_check: table.text("address_check", "\"report\""),
            },
            virtual_mac: table.flag_or_table(
                "virtual_mac",
                "`virtual_mac`",
                VirtualMac::flag,
                VirtualMac::read,
            ),
            garp: table.table("garp", "`garp`", Garp::read),
            track_interfaces: tracked_interfaces(&mut table),
            track: tracked(&mut table),
            hooks: Hooks::read(&mut table),
        };
        table.not_built("accept", is_true);
        router.typed = table.typed();
        table.foreign("[[vrrp]]", &ROUTER_WORDS);
        table.foreign("[[vrrp_group]]", &[("group", "members")]);
        table.finish();
        router
    }
}

impl Timing {
    fn read(table: &mut Reader<'_, '_>) -> Timing {
        Timing {
            advert_interval: table.duration("advert_interval", "\"1s\""),
            down_timer_adverts: table.number("down_timer_adverts", "3"),
            preempt: table.flag("preempt"),
            preempt_delay: table.duration("preempt_delay", "\"60s\""),
            start_delay: table.duration("start_delay", "\"10s\""),
            hand_over: table.flag("hand_over"),
            refuse_on_mismatch: table.flag("refuse_on_mismatch"),
        }
    }
}

impl Estate {
    fn read(table: &mut Reader<'_, '_>) -> Estate {
        let (one, short) =
            ("\"10.0.5.96/20\"", |text| Address { address: Field::Given(text), ..Address::default() });
        Estate {
            addresses: table.texts_or_tables("addresses", "`addresses`", one, short, Address::read),
            excluded_addresses: table.texts_or_tables(
                "excluded_addresses",
                "`excluded_addresses`",
                one,
                short,
                Address::read,
            ),
            routes: table.tables(
                "routes",
                "`routes`",
                "write it like `routes = [{ to = \"192.0.2.0/24\", via = \"10.0.5.1\" }]`",
                Route::read,
            ),
            rules: table.tables(
                "rules",
                "`rules`",
                "write it like `rules = [{ from = \"10.0.5.96\", table = 100 }]`",
                Rule::read,
            ),
        }
    }
}

impl Cast {
    fn read(table: &mut Reader<'_, '_>) -> Cast {
        Cast {
            unicast_peers: table.texts_or_tables(
                "unicast_peers",
                "`unicast_peers`",
                "\"10.0.5.92\"",
                |text| Peer { address: Field::Given(text), ..Peer::default() },
                Peer::read,
            ),
            source: table.text("source", "\"10.0.5.91\""),
            multicast_group: table.text("multicast_group", "\"224.0.0.18\""),
        }
    }
}

impl Auth {
    fn read(table: &mut Reader<'_, '_>) -> Auth {
        Auth {
            pass: table.text("auth_pass", "\"..\""),
            pass_file: table.text("auth_pass_file", "\"/etc/steelyard/vrrp\""),
            hmac: table.tables(
                "auth_hmac",
                "`auth_hmac`",
                "write it like `auth_hmac = [{ id = 1, key_file = \"/etc/steelyard/vrrp\" }]`",
                HmacKey::read,
            ),
            hmac_mode: table.text("auth_hmac_mode", "\"enforce\""),
        }
    }
}

impl Address {
    fn read(mut table: Reader<'_, '_>) -> Address {
        let address = Address {
            address: table.text("address", "\"10.0.5.96/20\""),
            dev: table.text("dev", "\"eth0\""),
            label: table.text("label", "\"eth0:0\""),
            scope: table.text("scope", "\"global\""),
            broadcast: table.text("broadcast", "\"10.0.15.255\""),
        };
        table.foreign("`addresses`", &[("brd", "broadcast")]);
        table.finish();
        address
    }
}

impl Route {
    fn read(mut table: Reader<'_, '_>) -> Route {
        let route = Route {
            to: table.text("to", "\"192.0.2.0/24\""),
            via: table.text("via", "\"10.0.5.1\""),
            dev: table.text("dev", "\"eth0\""),
            src: table.text("src", "\"10.0.5.96\""),
            table: table.number("table", "100"),
            metric: table.number("metric", "10"),
            scope: table.text("scope", "\"link\""),
        };
        table.foreign("`routes`", &[("gw", "via"), ("dst", "to"), ("gateway", "via")]);
        table.finish();
        route
    }
}

impl Rule {
    fn read(mut table: Reader<'_, '_>) -> Rule {
        let rule = Rule {
            from: table.text("from", "\"10.0.5.96\""),
            to: table.text("to", "\"192.0.2.0/24\""),
            iif: table.text("iif", "\"eth0\""),
            table: table.number("table", "100"),
            priority: table.number("priority", "1000"),
        };
        table.foreign("`rules`", &[("lookup", "table"), ("pref", "priority")]);
        table.finish();
        rule
    }
}

impl Peer {
    fn read(mut table: Reader<'_, '_>) -> Peer {
        let peer = Peer {
            address: table.text("address", "\"10.0.5.92\""),
            ttl_min: table.number("ttl_min", "255"),
            ttl_max: table.number("ttl_max", "255"),
        };
        table.foreign("`unicast_peers`", &[("min_ttl", "ttl_min"), ("max_ttl", "ttl_max")]);
        table.finish();
        peer
    }
}

impl HmacKey {
    fn read(mut table: Reader<'_, '_>) -> HmacKey {
        let key = HmacKey {
            id: table.number("id", "1"),
            key: table.text("key", "\"..\""),
            key_file: table.text("key_file", "\"/etc/steelyard/vrrp\""),
        };
        table.finish();
        key
    }
}

impl VirtualMac {
    fn flag(on: bool) -> VirtualMac {
        VirtualMac { is_off: !on, ..VirtualMac::default() }
    }

    fn read(mut table: Reader<'_, '_>) -> VirtualMac {
        let mac = VirtualMac {
            is_off: false,
            name: table.text("name", "\"vrrp.51\""),
            transmit_base: table.flag("transmit_base"),
        };
        table.finish();
        mac
    }
}

impl Garp {
    fn read(mut table: Reader<'_, '_>) -> Garp {
        let garp = Garp {
            times: table.texts("times", "[\"0ms\", \"10ms\", \"50ms\"]"),
            delay: table.duration("delay", "\"5s\""),
            refresh: table.duration("refresh", "\"60s\""),
            spacing: table.duration("spacing", "\"1ms\""),
        };
        table.foreign("`garp`", &[("repeat", "times"), ("interval", "spacing")]);
        table.finish();
        garp
    }
}

fn tracked_interfaces(table: &mut Reader<'_, '_>) -> Field<Vec<Spanned<TrackInterface>>> {
    table.texts_or_tables(
        "track_interfaces",
        "`track_interfaces`",
        "\"eth1\"",
        |text| TrackInterface { interface: Field::Given(text), ..TrackInterface::default() },
        |mut table| {
            let tracked = TrackInterface {
                interface: table.text("interface", "\"eth1\""),
                weight: table.number("weight", "-20"),
                reverse: table.flag("reverse"),
            };
            table.finish();
            tracked
        },
    )
}

fn tracked(table: &mut Reader<'_, '_>) -> Field<Vec<Spanned<Track>>> {
    let remedy = "write it like `track = [{ script = \"chk_lb\", weight = -20 }]`";
    table.tables("track", "`track`", remedy, |mut table| {
        let track = Track {
            interface: table.text("interface", "\"eth1\""),
            script: table.text("script", "\"chk_lb\""),
            process: table.text("process", "\"nginx\""),
            file: table.text("file", "\"by_hand\""),
            service: table.text("service", "\"web\""),
            datapath: table.flag("datapath"),
            weight: table.number("weight", "-20"),
            reverse: table.flag("reverse"),
        };
        table.finish();
        track
    })
}

impl Hooks {
    fn read(table: &mut Reader<'_, '_>) -> Hooks {
        let example = "\"/etc/steelyard/notify.sh\"";
        Hooks {
            any: table.words("notify", example),
            master: table.words("notify_master", example),
            backup: table.words("notify_backup", example),
            fault: table.words("notify_fault", example),
            stop: table.words("notify_stop", example),
            deleted: table.words("notify_deleted", example),
            lower_priority: table.words("notify_master_rx_lower_pri", example),
            user: table.text("notify_user", "\"nobody\""),
            mail: table.flag("smtp_alert"),
        }
    }
}

impl Group {
    pub(super) fn read(mut table: Reader<'_, '_>) -> Group {
        let group = Group {
            name: table.text("name", "\"VG_1\""),
            members: table.texts("members", "[\"VI_1\", \"VI_2\"]"),
            track_interfaces: tracked_interfaces(&mut table),
            track: tracked(&mut table),
            hooks: Hooks::read(&mut table),
        };
        let words =
            [("group", "members"), ("track_interface", "track_interfaces"), ("track_script", "track")];
        table.foreign("[[vrrp_group]]", &words);
        table.finish();
        group
    }
}

impl Script {
    pub(super) fn read(mut table: Reader<'_, '_>) -> Script {
        let script = Script {
            name: table.text("name", "\"chk_lb\""),
            command: table.words("command", "\"/etc/steelyard/check.sh\""),
            interval: table.duration("interval", "\"1s\""),
            timeout: table.duration("timeout", "\"1s\""),
            rise: table.number("rise", "2"),
            fall: table.number("fall", "2"),
            user: table.text("user", "\"nobody\""),
            init_fail: table.flag("init_fail"),
        };
        table.foreign("[[track_script]]", &[("script", "command")]);
        table.foreign("`track` of [[vrrp]]", &[("weight", "weight")]);
        table.finish();
        script
    }
}

impl Process {
    pub(super) fn read(mut table: Reader<'_, '_>) -> Process {
        let process = Process {
            name: table.text("name", "\"nginx\""),
            process: table.text("process", "\"nginx\""),
            quorum: table.number("quorum", "1"),
            quorum_max: table.number("quorum_max", "1"),
            delay: table.duration("delay", "\"1s\""),
        };
        table.foreign("[[track_process]]", &[("full_command", "process"), ("fork_delay", "delay")]);
        table.foreign("`track` of [[vrrp]]", &[("weight", "weight")]);
        table.finish();
        process
    }
}

impl TrackFile {
    pub(super) fn read(mut table: Reader<'_, '_>) -> TrackFile {
        let file = TrackFile {
            name: table.text("name", "\"by_hand\""),
            file: table.text("file", "\"/etc/steelyard/priority\""),
            interval: table.duration("interval", "\"1s\""),
        };
        table.foreign("[[track_file]]", &[("path", "file")]);
        table.foreign("`track` of [[vrrp]]", &[("weight", "weight")]);
        table.finish();
        file
    }
}

fn is_true(value: &DeValue<'_>) -> bool {
    value.as_bool() == Some(true)
}

/// Keepalived's blocks, at the top of a file.
pub(super) const BLOCK_WORDS: [(&str, &str); 4] = [
    ("vrrp_instance", "vrrp"),
    ("vrrp_sync_group", "vrrp_group"),
    ("vrrp_script", "track_script"),
    ("vrrp_track_file", "track_file"),
];

/// Keepalived's words of a vrrp_instance.
const ROUTER_WORDS: [(&str, &str); 33] = [
    ("virtual_router_id", "vrid"),
    ("advert_int", "advert_interval"),
    ("nopreempt", "preempt"),
    ("virtual_ipaddress", "addresses"),
    ("address", "addresses"),
    ("virtual_ipaddress_excluded", "excluded_addresses"),
    ("virtual_routes", "routes"),
    ("virtual_rules", "rules"),
    ("native_ipv6", "family"),
    ("unicast_peer", "unicast_peers"),
    ("unicast_src_ip", "source"),
    ("mcast_src_ip", "source"),
    ("mcast_dst_ip", "multicast_group"),
    ("vrrp_mcast_group4", "multicast_group"),
    ("authentication", "auth_pass"),
    ("auth_type", "auth_pass"),
    ("track_interface", "track_interfaces"),
    ("track_script", "track"),
    ("track_process", "track"),
    ("track_file", "track"),
    ("garp_master_delay", "garp"),
    ("garp_master_repeat", "garp"),
    ("garp_master_refresh", "garp"),
    ("garp_master_refresh_repeat", "garp"),
    ("garp_lower_prio_repeat", "garp"),
    ("vrrp_garp_interval", "garp"),
    ("use_vmac", "virtual_mac"),
    ("vmac_xmit_base", "virtual_mac"),
    ("no_accept", "accept"),
    ("skip_check_adv_addr", "address_check"),
    ("v3_checksum_as_v2", "checksum"),
    ("vrrp_startup_delay", "start_delay"),
    ("notify_script", "notify"),
];
