//! Interfaces: attaching to them, and noticing when what was attached is gone.

use tracing::info;

use super::control::Control;
use crate::{
    io::{
        kernel::{self, Mode, Target},
        net::{
            AttachedMode, Interface,
            follow::{LinkEvent, LinkState},
        },
    },
    pure::{config::model::XdpMode, notice::Notice, status::InterfaceStatus},
};

impl Control {
    /// An interface that was replaced has lost the program.
    pub(super) fn handle_link(&mut self, link: LinkEvent) {
        if !self.settings.file.datapath.interfaces.contains(&link.name) {
            // It waited while a reload left the interface.
            return;
        }
        let known = self.attached_index(&link.name);
        let (up, index) = match link.state {
            LinkState::Up { index } => (true, Some(index)),
            LinkState::Down { index } => (false, Some(index)),
            LinkState::Absent => (false, None),
        };
        if let Some(known) = known
            && index != Some(known)
        {
            self.state.detached(known);
            if let Ok(mut situation) = self.situation.lock() {
                situation.interfaces.retain(|interface| interface.name != link.name);
            }
            self.unattached.insert(link.name.clone());
        }
        let detail = match index {
            _ if up => "is back",
            Some(_) => "is down",
            None if known.is_some() => "is gone",
            None => "is not there: steelyard attaches to it as soon as it is",
        };
        let trouble = (!up).then(|| format!("interface {} {detail}", link.name));
        if self.warn_of(&format!("link {}", link.name), trouble) {
            let (interface, detail) = (link.name, detail.to_owned());
            self.notices.tell(&if up {
                Notice::InterfaceBack { interface, detail }
            } else {
                Notice::InterfaceGone { interface, detail }
            });
        }
    }

    /// Interfaces that came back.
    pub(super) async fn attach_missing(&mut self) {
        for name in self.unattached.clone() {
            // Its absence is in the warnings already.
            let Ok(interface) = self.net.interface(&name).await else { continue };
            let failure = self.attach(&interface).err().map(|error| error.to_string());
            self.trouble(&format!("attach {name}"), failure);
        }
    }

    /// Interfaces that the configuration no longer has lose the program.
    pub(super) fn leave_interfaces(&mut self, before: &[String]) {
        let kept = self.settings.file.datapath.interfaces.clone();
        for name in before.iter().filter(|name| !kept.contains(name)) {
            if let Some(index) = self.attached_index(name) {
                self.state.leave(index);
            }
            self.kernel.pins.unlink(name);
            self.unattached.remove(name);
            info!("detached from interface {name}, which is no longer configured");
            for about in ["link", "mode", "pin", "attach"] {
                self.trouble(&format!("{about} {name}"), None);
            }
        }
        self.drop_interfaces(|name| kept.iter().any(|kept| kept == name));
    }

    fn attached_index(&self, name: &str) -> Option<u32> {
        let situation = self.situation.lock().ok()?;
        situation.interfaces.iter().find(|interface| interface.name == name).map(|interface| interface.index)
    }

    /// Attaches to one interface, and tells the readers. True: the link is new, not one taken over.
    pub(super) fn attach(&mut self, interface: &Interface) -> Result<bool, kernel::AttachError> {
        let attached = self.kernel.attach(&target(interface), self.mode)?;
        let (name, mode) = (&interface.name, attached.mode.name());
        if attached.replaced {
            info!("took over interface {name} ({mode} mode)");
        } else {
            info!("attached to interface {name} ({mode} mode)");
        }
        let slow = (attached.mode == Mode::Generic && self.mode == XdpMode::Auto).then(|| {
            let cause = attached.fallback.unwrap_or_else(|| "as before the restart".to_owned());
            format!(
                "interface {name} runs xdp in generic mode, several times slower than native: {cause}; \
                 see `ethtool -i {name}` for its driver, or set [datapath] mode = \"generic\" to accept it"
            )
        });
        self.trouble(&format!("mode {name}"), slow);
        self.state.attach(interface.index);
        self.unattached.remove(name);
        if let Ok(mut situation) = self.situation.lock() {
            situation.interfaces.retain(|known| known.name != *name);
            let (name, mode) = (name.clone(), mode.to_owned());
            situation.interfaces.push(InterfaceStatus { name, index: interface.index, mode });
        }
        Ok(!attached.replaced)
    }

    /// Links whose pins somebody took away: the kernel detached the program at once.
    pub(super) fn check_pins(&mut self) {
        let Ok(pinned) = self.kernel.pins.linked() else {
            self.trouble(
                "pins",
                Some("the pin directory is gone, and xdp with it: start steelyard again".to_owned()),
            );
            self.drop_interfaces(|_| false);
            return;
        };
        let missing = self.drop_interfaces(|name| pinned.iter().any(|pin| pin == name));
        for name in missing {
            let text = format!("the pinned link of {name} is gone, and xdp with it: start steelyard again");
            self.trouble(&format!("pin {name}"), Some(text));
        }
    }

    /// Takes the interfaces that `stay` refuses out of the status, and returns their names.
    fn drop_interfaces(&self, stay: impl Fn(&str) -> bool) -> Vec<String> {
        let Ok(mut situation) = self.situation.lock() else { return Vec::new() };
        let gone = situation.interfaces.extract_if(.., |known| !stay(&known.name));
        gone.map(|interface| interface.name).collect()
    }
}

pub(super) fn target(interface: &Interface) -> Target {
    Target {
        index: interface.index,
        name: interface.name.clone(),
        attached: interface.xdp.as_ref().map(|xdp| (xdp.program_id, mode(xdp.mode))),
    }
}

fn mode(mode: AttachedMode) -> Mode {
    match mode {
        AttachedMode::Generic => Mode::Generic,
        AttachedMode::Native | AttachedMode::Hardware => Mode::Native,
    }
}
