//! Parser of libvirt's domain capabilities XML: the offer of a host's QEMU to one kind of VM.

use roxmltree::Node;
use vmgate_facts::{DeviceModels, text::plain};

use super::domain_xml::{child, children};

/// Offer of a host's QEMU to one kind of VM.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DomainCapabilities {
    /// Maximum number of vCPUs of the machine type.
    pub most_vcpus: Option<u32>,
    /// CPU models that a domain may name.
    pub cpu_models: Vec<String>,
    /// Features that the host's CPU has beside those of the model that is nearest to it (host-model).
    pub host_model_features: Vec<String>,
    /// Backends of a TPM; none where this libvirt does not report them.
    pub tpm_backends: Option<Vec<String>>,
    /// Models by kind of device, of the kinds whose models libvirt lists in full, and whatever else it lists, by its path.
    pub device_models: Vec<DeviceModels>,
}

/// Kinds of device with the list that holds their models, as [`super::domain_xml`] names kinds and models.
const MODEL_LISTS: &[(&str, &str)] = &[
    ("video", "modelType"),
    ("disk", "bus"),
    ("graphics", "type"),
    ("rng", "model"),
    ("tpm", "model"),
    ("redirdev", "bus"),
    ("crypto", "model"),
    ("panic", "model"),
];

/// Reads a domain capabilities XML. The error is the parser's.
pub fn parse(xml: &str) -> Result<DomainCapabilities, roxmltree::Error> {
    let document = vmgate_facts::xml::parse(xml)?;
    let root = document.root_element();
    let vcpu = child(root, "vcpu").and_then(|vcpu| vcpu.attribute("max"));
    let modes: Vec<Node> = child(root, "cpu").into_iter().flat_map(|cpu| children(cpu, "mode")).collect();
    let named = |name: &'static str| modes.iter().filter(move |mode| mode.attribute("name") == Some(name));
    let devices = child(root, "devices");
    Ok(DomainCapabilities {
        device_models: devices
            .map(device_models)
            .unwrap_or_default()
            .into_iter()
            .chain(offers(root))
            .collect(),
        most_vcpus: vcpu.and_then(|most| most.parse().ok()),
        cpu_models: named("custom")
            .flat_map(|mode| children(*mode, "model"))
            .filter_map(|model| model.text())
            .map(plain)
            .collect(),
        host_model_features: named("host-model")
            .flat_map(|mode| children(*mode, "feature"))
            .filter(|feature| feature.attribute("policy") == Some("require"))
            .filter_map(|feature| feature.attribute("name"))
            .map(plain)
            .collect(),
        tpm_backends: devices.and_then(|devices| child(devices, "tpm")).map(|tpm| {
            if tpm.attribute("supported") == Some("yes") { choices(tpm, "backendModel") } else { Vec::new() }
        }),
    })
}

fn device_models(devices: Node) -> Vec<DeviceModels> {
    let of_kind = |(kind, list): &(&str, &str)| {
        let device = child(devices, kind)?;
        // A libvirt that offers a kind without listing its models does not tell which there are.
        let models = match device.attribute("supported") {
            Some("no") => Vec::new(),
            _ => Some(choices(device, list)).filter(|models| !models.is_empty())?,
        };
        Some(DeviceModels { kind: (*kind).to_owned(), models })
    };
    MODEL_LISTS.iter().filter_map(of_kind).collect()
}

/// Deepest element that is read; libvirt's have four.
const DEEPEST: usize = 8;

/// Everything that has `supported` or is a list, by its path: `features/genid/supported`, `memoryBacking/sourceType`,
/// `cpu/mode/host-passthrough/supported`. So what a newer libvirt lists has a name, too.
fn offers(root: Node) -> Vec<DeviceModels> {
    let mut found = Vec::new();
    let mut open: Vec<(Node, String)> = vec![(root, String::new())];
    while let Some((node, path)) = open.pop() {
        for inner in node.children().filter(Node::is_element) {
            let tag = inner.tag_name().name();
            // A list is found below, and CPU models are facts of their own.
            if matches!(tag, "enum" | "value" | "model" | "blockers") {
                continue;
            }
            let tag = if tag == "devices" { String::new() } else { format!("/{tag}") };
            let name = inner.attribute("name").map(|name| format!("/{name}")).unwrap_or_default();
            let path = format!("{path}{tag}{name}").trim_start_matches('/').to_owned();
            if let Some(supported) = inner.attribute("supported") {
                let models = if supported == "yes" { vec!["yes".to_owned()] } else { Vec::new() };
                // Not the path alone: the names of kinds stand for their models.
                found.push(DeviceModels { kind: plain(&format!("{path}/supported")), models });
            }
            found.extend(children(inner, "enum").filter_map(|list| {
                let kind = plain(&format!("{path}/{}", list.attribute("name")?));
                let values = children(list, "value").filter_map(|value| value.text()).map(plain).collect();
                Some(DeviceModels { kind, models: values })
            }));
            if path.split('/').count() < DEEPEST {
                open.push((inner, path));
            }
        }
    }
    found.sort_by(|a, b| a.kind.cmp(&b.kind));
    found
}

/// Values of an `<enum name=…>`.
fn choices(node: Node, name: &str) -> Vec<String> {
    let found = children(node, "enum").find(|list| list.attribute("name") == Some(name));
    let values = found.into_iter().flat_map(|list| children(list, "value"));
    values.filter_map(|value| value.text()).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_vcpus_and_tpm_are_read() {
        let xml = "<domainCapabilities><vcpu max='255'/><cpu>
            <mode name='host-model' supported='yes'><model fallback='forbid'>EPYC</model>
            <feature policy='require' name='x2apic'/><feature policy='disable' name='npt'/></mode>
            <mode name='custom' supported='yes'><model usable='yes' vendor='Intel'>Nehalem</model>
            <model usable='no'>EPYC-v2</model></mode></cpu>
            <devices><tpm supported='yes'><enum name='model'><value>tpm-crb</value></enum>
            <enum name='backendModel'><value>passthrough</value><value>emulator</value></enum></tpm>
            <crypto supported='no'/></devices>
            </domainCapabilities>";
        let offer = parse(xml).unwrap();
        assert_eq!(offer.most_vcpus, Some(255));
        assert_eq!(offer.cpu_models, ["Nehalem", "EPYC-v2"]);
        assert_eq!(offer.host_model_features, ["x2apic"]);
        assert_eq!(offer.tpm_backends.unwrap(), ["passthrough", "emulator"]);
        let models: Vec<_> =
            offer.device_models.iter().map(|m| (m.kind.as_str(), m.models.join(" "))).collect();
        let expected = [
            ("tpm", "tpm-crb"),
            ("crypto", ""),
            ("cpu/mode/custom/supported", "yes"),
            ("cpu/mode/host-model/supported", "yes"),
            ("crypto/supported", ""),
            ("tpm/backendModel", "passthrough emulator"),
            ("tpm/model", "tpm-crb"),
            ("tpm/supported", "yes"),
        ];
        assert_eq!(models, expected.map(|(kind, models)| (kind, models.to_owned())));
        assert_eq!(parse("<domainCapabilities/>").unwrap(), DomainCapabilities::default());
        assert!(parse("").is_err());
    }
}
