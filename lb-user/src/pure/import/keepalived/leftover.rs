//! Words that are known, and do nothing here: each with the reason.

use super::{
    parser::Statement,
    value::{flag, unused},
};
use crate::pure::config::error::Findings;

/// Of global_defs. False: unknown.
pub(super) fn global(statement: &Statement, findings: &mut Findings) -> bool {
    listed(&GLOBAL, statement, findings)
}

/// Of a vrrp_instance. False: unknown.
pub(super) fn instance(statement: &Statement, findings: &mut Findings) -> bool {
    listed(&INSTANCE, statement, findings)
}

/// Of the file itself. False: unknown.
pub(super) fn top(statement: &Statement, findings: &mut Findings) -> bool {
    if let Some((keyword, remedy)) = LATER.iter().find(|(keyword, _)| *keyword == statement.keyword()) {
        let message = format!("`{keyword}` is not taken over yet: nothing in this block has an effect");
        findings.warning(statement.at(), message, *remedy);
        return true;
    }
    listed(&TOP, statement, findings)
}

fn listed(list: &[(&str, &str)], statement: &Statement, findings: &mut Findings) -> bool {
    let Some((_, why)) = list.iter().find(|(word, _)| *word == statement.keyword()) else { return false };
    // What is switched off does nothing in Keepalived either.
    let is_off = statement.values().len() == 1
        && ["off", "false", "no"].contains(&statement.values()[0].text.as_str());
    if !is_off || flag(statement, findings) != Some(false) {
        unused(statement, why, findings);
    }
    true
}

const FIREWALL: &str = "addresses are never hidden by a firewall";
const PROCESS: &str =
    "there is one process, whose thread for VRRP has real-time priority where that is allowed";
const BUFFERS: &str = "the size of buffers is chosen by itself";
const SNMP: &str = "there is no SNMP and no D-Bus: `steelyard vrrp show`, metrics and events tell the same";
const RELOAD: &str = "a reload is always checked as a whole before it changes anything";
const LVS: &str = "it is for virtual_server, which is not taken over yet";

const GLOBAL: [(&str, &str); 72] = [
    (
        "enable_script_security",
        "scripts run as the user that is configured; let nobody else be able to change them",
    ),
    ("vrrp_iptables", FIREWALL),
    ("vrrp_ipsets", FIREWALL),
    ("nftables", FIREWALL),
    ("nftables_priority", FIREWALL),
    ("nftables_counters", FIREWALL),
    ("nftables_ifindex", FIREWALL),
    ("disable_local_igmp", FIREWALL),
    ("nftables_ipvs", LVS),
    ("nftables_ipvs_priority", LVS),
    ("nftables_ipvs_start_fwmark", LVS),
    ("lvs_sync_daemon", LVS),
    ("lvs_timeouts", LVS),
    ("lvs_flush", LVS),
    ("lvs_flush_on_stop", LVS),
    ("lvs_flush_onstop", LVS),
    ("lvs_notify_fifo", LVS),
    ("lvs_notify_fifo_script", LVS),
    ("rs_init_notifies", LVS),
    ("no_checker_emails", LVS),
    ("smtp_alert_checker", LVS),
    ("checker_log_all_failures", LVS),
    ("no_email_faults", "mail tells of faults, too"),
    ("smtp_helo_name", "mail is sent with the host's name"),
    ("email_faults", "mail tells of faults in any case"),
    ("process_names", PROCESS),
    ("process_name", PROCESS),
    ("vrrp_process_name", PROCESS),
    ("checker_process_name", PROCESS),
    ("bfd_process_name", PROCESS),
    ("max_auto_priority", PROCESS),
    ("min_auto_priority_delay", PROCESS),
    ("vrrp_priority", PROCESS),
    ("checker_priority", PROCESS),
    ("bfd_priority", PROCESS),
    ("vrrp_no_swap", PROCESS),
    ("checker_no_swap", PROCESS),
    ("bfd_no_swap", PROCESS),
    ("vrrp_cpu_affinity", PROCESS),
    ("checker_cpu_affinity", PROCESS),
    ("bfd_cpu_affinity", PROCESS),
    ("vrrp_rt_priority", PROCESS),
    ("checker_rt_priority", PROCESS),
    ("bfd_rt_priority", PROCESS),
    ("vrrp_rlimit_rttime", PROCESS),
    ("checker_rlimit_rttime", PROCESS),
    ("bfd_rlimit_rttime", PROCESS),
    ("snmp_socket", SNMP),
    ("enable_snmp_vrrp", SNMP),
    ("enable_snmp_checker", SNMP),
    ("enable_snmp_rfc", SNMP),
    ("enable_snmp_rfcv2", SNMP),
    ("enable_snmp_rfcv3", SNMP),
    ("enable_traps", SNMP),
    ("enable_dbus", SNMP),
    ("dbus_service_name", SNMP),
    ("vrrp_netlink_cmd_rcv_bufs", BUFFERS),
    ("vrrp_netlink_monitor_rcv_bufs", BUFFERS),
    ("process_monitor_rcv_bufs", BUFFERS),
    ("vrrp_rx_bufs_policy", BUFFERS),
    ("vrrp_rx_bufs_multiplier", BUFFERS),
    ("reload_check_config", RELOAD),
    ("reload_repeat", RELOAD),
    ("reload_time_file", RELOAD),
    ("dynamic_interfaces", "an interface that is missing is waited for in any case"),
    ("umask", "what is written has modes of its own"),
    ("log_unknown_vrids", "`steelyard vrrp show` lists who else sends"),
    ("vrrp_check_unicast_src", "adverts of unicast routers come from their peers, or are refused"),
    ("vrrp_notify_priority_changes", "changes of the priority are events, and not written to FIFOs"),
    ("vrrp_lower_prio_no_advert", "an advert of lower priority is answered at once (RFC 9568)"),
    ("vrrp_higher_prio_send_advert", "the addresses are announced again when a rival disappears"),
    ("vrrp_min_garp", "the addresses are announced five times, spread over a second"),
];

const INSTANCE: [(&str, &str); 20] = [
    ("dont_track_primary", "adverts cannot leave through an interface that is down, so it is tracked"),
    ("track_src_ip", "without its source address a router cannot send, and is in Fault in any case"),
    ("use_vmac_addr", "addresses on other interfaces keep the MAC of those"),
    ("use_ipvlan", "only `use_vmac` is built: the interface's own MAC is used"),
    ("vrf", "the interface says which VRF it is"),
    ("promote_secondaries", "each address is removed by itself, and what else was lost with it comes back"),
    ("debug", "the log has levels: see [log] of steelyard.toml"),
    ("kernel_rx_buf_size", BUFFERS),
    ("linkbeat_use_polling", "the kernel tells of links"),
    ("check_unicast_src", "adverts of unicast routers come from their peers, or are refused"),
    ("unicast_fault_no_peer", "without peers adverts are multicast"),
    ("unicast_ttl", "unicast adverts leave with TTL 255"),
    ("old_unicast_checksum", "the form of Keepalived 1.3.6 and before is not sent"),
    ("notify_priority_changes", "changes of the priority are events, and not written to FIFOs"),
    ("lower_prio_no_advert", "an advert of lower priority is answered at once (RFC 9568)"),
    ("higher_prio_send_advert", "the addresses are announced again when a rival disappears"),
    ("garp_extra_if", "addresses on other interfaces are announced as all are"),
    ("lvs_sync_daemon_interface", LVS),
    ("track_bfd", "BFD is not built"),
    ("no_virtual_ipaddress", "a router without addresses is as good as any"),
];

const SERVICE: &str = "write a [[service]] in a file for -c";
const NETWORK: &str = "let the system set it when it configures its interfaces";

/// Blocks, and what to do instead.
const LATER: [(&str, &str); 8] = [
    ("virtual_server", SERVICE),
    ("virtual_server_group", SERVICE),
    ("SSL", SERVICE),
    ("bfd_instance", "track what it watched by a script"),
    ("static_ipaddress", NETWORK),
    ("static_routes", NETWORK),
    ("static_rules", NETWORK),
    ("track_group", NETWORK),
];

const TOP: [(&str, &str); 13] = [
    ("garp_group", "`vrrp_garp_interval` holds for each interface"),
    ("linkbeat_interfaces", "the kernel tells of links"),
    ("interface_up_down_delays", "a link that bounces has its own patience"),
    ("net_namespace", "start steelyard in the namespace: `ip netns exec NAME steelyard run`"),
    ("net_namespace_ipvs", LVS),
    ("namespace_with_ipsets", FIREWALL),
    ("instance", "each daemon has an admin socket of its own"),
    ("use_pid_dir", "there is no file with a process id"),
    ("linkbeat_use_polling", "the kernel tells of links"),
    ("child_wait_time", PROCESS),
    ("process_names", PROCESS),
    ("config_save_dir", "the configuration is read where it stands"),
    ("tmp_config_directory", "the configuration is read where it stands"),
];
