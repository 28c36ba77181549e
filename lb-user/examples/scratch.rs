fn main() {
    let pins = lb_user::io::kernel::Pins::open(std::path::Path::new("/sys/fs/bpf/sy-scratch")).unwrap();
    match lb_user::io::kernel::Kernel::load(
        pins,
        lb_user::io::kernel::Sizes { flows: 262144, ring_slots: 1 << 20 },
    ) {
        Ok(k) => {
            println!("loaded {:?}", k.tables().services.len());
            std::process::Command::new("bpftool")
                .args(["prog", "show", "name", "steelyard"])
                .status()
                .unwrap();
            std::process::Command::new("sh")
                .args([
                    "-c",
                    "bpftool prog dump xlated name steelyard > /tmp/w/xlated.txt; wc -l /tmp/w/xlated.txt",
                ])
                .status()
                .unwrap();
            k.pins.remove().unwrap();
        }
        Err(e) => println!("{e}"),
    }
}
