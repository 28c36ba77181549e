//! One fault at a time: where it is reported, and how. Those of a service's own keys are in `services`.

use super::{BASE, DNS, check, only};

#[test]
fn text_and_keys() {
    check(&[
        (
            "syntax: value not quoted",
            r#""lb1""#,
            "lb1",
            "2:8: string values must be quoted, expected literal string",
        ),
        ("syntax: value missing", r#""lb1""#, "", "2:8: the value is missing"),
        ("syntax: string not closed", r#""lb1""#, r#""lb1"#, r#"2:12: invalid basic string, expected `"`"#),
        (
            "syntax: comma missing",
            r#""a", address"#,
            r#""a" address"#,
            "15:16: missing comma between key-value pairs, expected `,`",
        ),
        ("key twice", "port = 80", "port = 80\nport = 81", "13:1: `port` is given twice"),
        ("table twice", "[log]", "[global]\n[log]", "7:2: `global` is given twice"),
        ("unknown table", "[log]", "[lgo]", "7:2: unknown key `lgo` in the top level of the file"),
        (
            "unknown table, nothing near",
            "[log]",
            "[kubernetes]",
            "7:2: unknown key `kubernetes` in the top level of the file",
        ),
        (
            "unknown key at top",
            "[global]",
            "treads = 2\n[global]",
            "1:1: unknown key `treads` in the top level of the file",
        ),
        ("unknown key in a table", "interfaces", "interface", "6:1: unknown key `interface` in [datapath]"),
        (
            "unknown key, near",
            "port = 80",
            r#"port = 80
protocl = "tcp""#,
            "13:1: unknown key `protocl` in [[service]]",
        ),
        (
            "unknown key of a server",
            r#"{ name = "b","#,
            r#"{ wieght = 3, name = "b","#,
            "16:5: unknown key `wieght` in `server`",
        ),
        (
            "unknown key of a check",
            r#"interval = "2s""#,
            r#"intervall = "2s""#,
            "19:1: unknown key `intervall` in [service.check]",
        ),
        ("list for a table", "[log]", "[[log]]", "7:1: `log` must be one table, not a list"),
        ("value for a table", "[global]", "log = 5\n[global]", "8:2: `log` is given twice"),
        (
            "value for a list of tables",
            "[service.check]",
            "check = 1\n[service.check]",
            "19:10: `check` is given twice",
        ),
        (
            "server is a string",
            r#"  { name = "b", address = "10.0.5.92" },"#,
            r#"  "10.0.5.92","#,
            "16:3: `server` must be a list of tables, not a string",
        ),
    ]);
}

#[test]
fn types() {
    check(&[
        ("string wanted", r#""lb1""#, "1", "2:8: `node` must be a string, not an integer"),
        ("integer wanted", "port = 80", "port = true", "12:8: `port` must be an integer, not true or false"),
        (
            "float for an integer",
            r#"interval = "2s""#,
            "rise = 1.5",
            "19:8: `rise` must be an integer, not a float",
        ),
        (
            "integer beyond 64 bits",
            r#"interval = "2s""#,
            "rise = 99999999999999999999",
            "19:8: `rise` is out of range: `99999999999999999999`",
        ),
        (
            "list wanted",
            r#"["eth0"]"#,
            r#""eth0""#,
            "6:14: `interfaces` must be a list of strings, not a string",
        ),
        (
            "list of strings wanted",
            r#"["eth0"]"#,
            r#"["eth0", 1]"#,
            "6:23: `interfaces` must be a list of strings, not an integer",
        ),
        (
            "duration without unit",
            r#"interval = "2s""#,
            "interval = 2",
            "19:12: `interval` is a duration and needs a unit",
        ),
        (
            "duration, bad",
            r#"interval = "2s""#,
            r#"interval = "2 s""#,
            "19:12: the duration `2 s` has something else than numbers and units",
        ),
        (
            "duration, unknown unit",
            r#"interval = "2s""#,
            r#"interval = "2w""#,
            "19:12: the duration `2w` has an unknown unit",
        ),
        (
            "date for a duration",
            r#"interval = "2s""#,
            "interval = 2026-01-01",
            "19:12: `interval` must be a duration, not a date",
        ),
    ]);
}

#[test]
fn names_and_required_keys() {
    check(&[
        ("name empty", r#"name = "web""#, r#"name = """#, "10:8: `` is not a name"),
        ("name with a slash", r#"name = "web""#, r#"name = "we/b""#, "10:8: `we/b` is not a name"),
        (
            "name missing",
            r#"name = "web"
"#,
            "",
            "9:1: `name` is missing here",
        ),
        (
            "address missing",
            r#"address = "10.0.5.96"
"#,
            "",
            "9:1: `address` is missing here",
        ),
        ("address empty", r#""10.0.5.96""#, "[]", "11:11: `address` is empty"),
        ("port missing", "port = 80\n", "", "9:1: `port` is missing here"),
        (
            "forward missing",
            r#"forward = "nat"
"#,
            "",
            "9:1: `forward` is missing here",
        ),
        ("server name missing", r#"name = "b", "#, "", "16:3: `name` is missing here"),
        ("server address missing", r#", address = "10.0.5.92""#, "", "16:3: `address` is missing here"),
    ]);
}

#[test]
fn ports_and_words() {
    check(&[
        ("port zero", "port = 80", "port = 0", "12:8: `port` is out of range: 0"),
        ("port too large", "port = 80", "port = 65536", "12:8: `port` is out of range: 65536"),
        ("port quoted", "port = 80", r#"port = "80""#, "12:8: `port` must be an integer, not a string"),
        ("port nonsense", "port = 80", r#"port = "http""#, "12:8: `http` is not a port"),
        (
            "protocol unknown",
            "port = 80",
            r#"port = 80
protocol = "tpc""#,
            "13:12: `tpc` is not a value of `protocol`",
        ),
        ("forward unknown", r#""nat""#, r#""NAT""#, "13:11: `NAT` is not a value of `forward`"),
        (
            "no_server unknown",
            "port = 80",
            r#"port = 80
no_server = "refuse""#,
            "13:13: `refuse` is not a value of `no_server`",
        ),
        (
            "slots no power of two",
            "port = 80",
            "port = 80\nslots = 1000",
            "13:9: `slots` is not a power of two: 1000",
        ),
        ("slots too few", "port = 80", "port = 80\nslots = 128", "13:9: `slots` is out of range: 128"),
        (
            "idle too short",
            "port = 80",
            r#"port = 80
idle_timeout = "10ms""#,
            "13:16: `idle_timeout` is out of range: `10ms`",
        ),
        (
            "idle too long",
            "port = 80",
            r#"port = 80
idle_timeout = "2d""#,
            "13:16: `idle_timeout` is out of range: `2d`",
        ),
        (
            "weight negative",
            r#""10.0.5.92" }"#,
            r#""10.0.5.92", weight = -1 }"#,
            "16:49: `weight` is out of range: -1",
        ),
        (
            "weight too large",
            r#""10.0.5.92" }"#,
            r#""10.0.5.92", weight = 65536 }"#,
            "16:49: `weight` is out of range: 65536",
        ),
    ]);
}

#[test]
fn checks() {
    check(&[
        ("check unknown", r#"interval = "2s""#, r#"type = "ping""#, "19:8: `ping` is not a value of `type`"),
        (
            "check interval too short",
            r#"interval = "2s""#,
            r#"interval = "9ms""#,
            "19:12: `interval` is out of range: `9ms`",
        ),
        (
            "check interval too long",
            r#"interval = "2s""#,
            r#"interval = "61m""#,
            "19:12: `interval` is out of range: `61m`",
        ),
        (
            "check timeout too long",
            r#"interval = "2s""#,
            r#"interval = "2s"
timeout = "3s""#,
            "20:11: `timeout` is longer than `interval`: the next check would start before this one ends",
        ),
        (
            "check timeout zero",
            r#"interval = "2s""#,
            r#"timeout = "0s""#,
            "19:11: `timeout` is out of range: `0s`",
        ),
        ("check rise zero", r#"interval = "2s""#, "rise = 0", "19:8: `rise` is out of range: 0"),
        ("check fall too many", r#"interval = "2s""#, "fall = 256", "19:8: `fall` is out of range: 256"),
        ("check port", r#"interval = "2s""#, "port = 0", "19:8: `port` is out of range: 0"),
    ]);
}

#[test]
fn single_tables() {
    check(&[
        (
            "admin socket relative",
            r#"node = "lb1""#,
            r#"admin_socket = "admin.sock""#,
            "2:16: `admin.sock` is not an absolute path",
        ),
        (
            "admin socket too long",
            r#"node = "lb1""#,
            r#"admin_socket = "/xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx""#,
            "2:16: the path `/xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx..` is too long",
        ),
        ("secret empty", r#""hush""#, r#""""#, "4:10: `secret` is empty"),
        (
            "secret twice",
            r#"secret = "hush""#,
            r#"secret = "hush"
secret_file = "/etc/steelyard/secret""#,
            "5:15: `secret_file` and `secret` (steelyard.toml:4) are both given",
        ),
        (
            "secret file relative",
            r#"secret = "hush""#,
            r#"secret_file = "secret""#,
            "4:15: `secret` is not an absolute path",
        ),
        (
            "interfaces missing",
            r#"interfaces = ["eth0"]
"#,
            "",
            "5:1: there are services, but no interface to receive their packets",
        ),
        (
            "interfaces empty",
            r#"["eth0"]"#,
            "[]",
            "5:1: there are services, but no interface to receive their packets",
        ),
        (
            "interface twice",
            r#"["eth0"]"#,
            r#"["eth0", "eth0"]"#,
            "6:23: the interface `eth0` is given twice",
        ),
        (
            "interface too long",
            r#"["eth0"]"#,
            r#"["sixteen-bytes-xx"]"#,
            "6:15: `sixteen-bytes-xx` is not an interface name",
        ),
        ("interface with a slash", r#"["eth0"]"#, r#"["eth/0"]"#, "6:15: `eth/0` is not an interface name"),
        ("interface with a space", r#"["eth0"]"#, r#"["eth 0"]"#, "6:15: `eth 0` is not an interface name"),
        (
            "mode unknown",
            "[log]",
            r#"mode = "offload"
[log]"#,
            "7:8: `offload` is not a value of `mode`",
        ),
        ("state relative", r#"node = "lb1""#, r#"state = "lb""#, "2:9: `lb` is not an absolute path"),
        (
            "watchdog too short",
            "[log]",
            r#"watchdog = "10ms"
[log]"#,
            "7:12: `watchdog` is out of range: `10ms`",
        ),
        ("flows too few", "[log]", "flows = 512\n[log]", "7:9: `flows` is out of range: 512"),
        (
            "nat_source loopback",
            "[log]",
            r#"nat_source = ["127.0.0.1"]
[log]"#,
            "7:15: `127.0.0.1` is a loopback address",
        ),
        (
            "nat_source twice",
            "[log]",
            r#"nat_source = ["10.0.5.93", "10.0.5.93"]
[log]"#,
            "7:28: the address `10.0.5.93` is given twice",
        ),
        (
            "pin relative",
            "[log]",
            r#"pin = "steelyard"
[log]"#,
            "7:7: `steelyard` is not an absolute path",
        ),
        ("log level unknown", r#""info""#, r#""warning""#, "8:9: `warning` is not a value of `level`"),
    ]);
}

#[test]
fn two_services() {
    let cases = [
        (
            "service name twice",
            r#"name = "dns""#,
            r#"name = "web""#,
            "21:8: the service name `web` is taken: steelyard.toml:10 has it already",
        ),
        (
            "same address, port and protocol",
            r#"address = "10.0.5.97"
port = 53"#,
            r#"address = "10.0.5.96"
port = 80"#,
            "22:11: service `dns` takes 10.0.5.96:80/tcp from service `web` (steelyard.toml:11)",
        ),
        (
            "server is another service's vip",
            r#""10.0.5.95""#,
            r#""10.0.5.96""#,
            "26:35: the server address `10.0.5.96` is the address of service `web` (steelyard.toml:11)",
        ),
    ];
    for (name, old, new, expected) in cases {
        assert_eq!(DNS.matches(old).count(), 1, "{old:?} is in the second service once");
        only(name, &format!("{BASE}{}", DNS.replace(old, new)), expected);
    }
}
