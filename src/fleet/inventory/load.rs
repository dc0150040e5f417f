//! Loads an inventory file: checks the document and reports all problems together, each with its line.

use std::{collections::HashMap, sync::Arc};

use vmgate_documents::{Node, Problem, Problems, Shape, SourceFile, closest};
use vmgate_facts::HostUri;

use super::{
    Group, Inventory, InventoryHost, Network, Pool,
    document::{GroupDocument, HostDocument, InventoryDocument, ScopeDocument},
};
use crate::fleet::{AffinityRule, GroupScope, Limits};

static INVENTORY: Shape<InventoryDocument> = Shape::new();

pub(super) fn load(file: &Arc<SourceFile>) -> Result<Inventory, Problems> {
    let (document, root) = INVENTORY.read(file, |root| {
        let mut check = Check { file, problems: Vec::new() };
        check.inventory(root);
        check.problems
    })?;
    let networks: Vec<&str> = document.networks.iter().map(|network| network.name.as_str()).collect();
    let pools: Vec<&str> = document.pools.iter().map(|pool| pool.name.as_str()).collect();
    let groups: Vec<Group> = document.groups.iter().map(group).collect();
    let contradictions = contradictions(file, &root, &groups);
    if !contradictions.is_empty() {
        return Err(contradictions.into());
    }
    let nodes = root.get("hosts").map(Node::items).unwrap_or_default();
    let hosts = document.hosts.iter().zip(nodes).map(|(host, node)| {
        host_of(host, &pools, &networks).map_err(|why| Problem::at(file, node.span.clone(), why))
    });
    let limits = document.limits;
    let at_once = |limit: Option<u32>, default: usize| limit.map_or(default, |limit| limit as usize);
    Ok(Inventory {
        file: file.name.clone(),
        hosts: hosts.collect::<Result<_, Problem>>()?,
        groups,
        limits: Limits {
            outgoing_per_host: at_once(limits.outgoing_per_host, 1),
            incoming_per_host: at_once(limits.incoming_per_host, 1),
            total: at_once(limits.total, usize::MAX),
        },
        limits_outgoing: limits.outgoing_per_host.is_some(),
        bounds: Vec::new(),
        after_maintenance: document.after_maintenance,
        pools: document
            .pools
            .iter()
            .map(|pool| Pool {
                name: pool.name.clone(),
                vcpus_per_cpu: pool.vcpus_per_cpu,
                reserve_bytes: pool.reserve_bytes.unwrap_or(0),
            })
            .collect(),
        networks: document
            .networks
            .iter()
            .map(|network| Network {
                name: network.name.clone(),
                bandwidth_bytes_per_second: network.bandwidth_bytes_per_second,
            })
            .collect(),
    })
}

fn host_of(host: &HostDocument, pools: &[&str], networks: &[&str]) -> Result<InventoryHost, String> {
    let place = |names: &[&str], wanted: &str| names.iter().position(|name| *name == wanted);
    Ok(InventoryHost {
        name: host.name.clone(),
        uri: host.uri.parse::<HostUri>().map_err(|error| error.to_string())?,
        rack: host.rack.clone().unwrap_or_else(|| host.name.clone()),
        pool: host.pool.as_deref().and_then(|pool| place(pools, pool)),
        networks: host.networks.iter().filter_map(|network| place(networks, network)).collect(),
        migrate_address: host.migrate_address,
        bandwidth_bytes_per_second: host.bandwidth_bytes_per_second,
        maintenance: host.maintenance.clone(),
    })
}

fn group(group: &GroupDocument) -> Group {
    let scope = |place: ScopeDocument| match place {
        ScopeDocument::Host => GroupScope::Host,
        ScopeDocument::Rack => GroupScope::Rack,
    };
    let together = group.together.map(|place| (AffinityRule::Together, scope(place)));
    Group {
        name: group.name.clone(),
        vms: group.vms.clone(),
        rule: together.or(group.apart.map(|place| (AffinityRule::Apart, scope(place)))),
        one_at_a_time: group.one_at_a_time,
    }
}

/// Checks beyond the types of the document.
struct Check<'a> {
    file: &'a Arc<SourceFile>,
    problems: Vec<Problem>,
}

impl Check<'_> {
    fn wrong(&mut self, node: &Node, message: impl Into<String>, label: &str, help: impl Into<String>) {
        self.problems.push(Problem::at(self.file, node.span.clone(), message).label(label).help(help));
    }

    fn inventory(&mut self, root: &Node) {
        let items = |key: &str| root.get(key).map(Node::items).unwrap_or_default();
        self.each_once(items("networks"), "name", "network");
        self.each_once(items("pools"), "name", "pool");
        self.each_once(items("hosts"), "name", "host");
        self.each_once(items("hosts"), "uri", "URI");
        self.each_once(items("groups"), "name", "group");
        let names = |key: &str| -> Vec<String> {
            items(key).iter().filter_map(|node| Some(node.get("name")?.text()?.to_owned())).collect()
        };
        let (pools, networks) = (names("pools"), names("networks"));
        if items("hosts").is_empty()
            && let Some(node) = root.get("hosts")
        {
            self.wrong(
                node,
                "the inventory has no hosts",
                "empty",
                "list each host with its `name` and `uri`",
            );
        }
        for host in items("hosts") {
            self.host(host, &pools, &networks);
        }
        for group in items("groups") {
            self.group(group);
        }
        for node in items("networks").iter().chain(items("hosts")) {
            self.above_zero(node, "bandwidth_bytes_per_second");
        }
        for pool in items("pools") {
            self.above_zero(pool, "vcpus_per_cpu");
        }
    }

    fn each_once(&mut self, nodes: &[Node], key: &str, what: &str) {
        let mut seen: HashMap<&str, &Node> = HashMap::new();
        for name in nodes.iter().filter_map(|node| node.get(key)) {
            let Some(text) = name.text() else { continue };
            if text.trim().is_empty() || text.len() > 256 || text.chars().any(char::is_control) {
                let message = format!("`{key}` must be a text of 1 to 256 bytes without control characters");
                self.wrong(name, message, "not allowed", "shorten the text, or fill in the field");
            } else if let Some(before) = seen.insert(text, name) {
                let problem =
                    Problem::at(self.file, name.span.clone(), format!("the {what} `{text}` is listed twice"))
                        .label("again")
                        .related(before.span.clone(), "first")
                        .help("remove one of the two: a host that is counted twice would get too many VMs");
                self.problems.push(problem);
            }
        }
    }

    fn host(&mut self, host: &Node, pools: &[String], networks: &[String]) {
        if let Some(node) = host.get("name")
            && let Some(name) = node.text()
            && pools.iter().any(|pool| pool == name)
        {
            self.wrong(
                node,
                format!("`{name}` is also the name of a pool"),
                "host with the same name",
                "`--into` would be ambiguous: rename one of the two",
            );
        }
        if let Some(node) = host.get("uri")
            && let Some(Err(error)) = node.text().map(str::parse::<HostUri>)
        {
            self.wrong(node, error.to_string(), "invalid URI", "see https://libvirt.org/uri.html");
        }
        if let Some(pool) = host.get("pool") {
            self.known(pool, pools, "pool");
        }
        for network in host.get("networks").map(Node::items).unwrap_or_default() {
            self.known(network, networks, "network");
        }
    }

    fn known(&mut self, node: &Node, names: &[String], what: &str) {
        let Some(name) = node.text().filter(|name| !names.iter().any(|known| known == name)) else { return };
        let help = match closest(name, names.iter().map(String::as_str)) {
            Some(like) => format!("did you mean `{like}`?"),
            None => format!("add the {what} under `{what}s`"),
        };
        self.wrong(node, format!("there is no {what} `{name}`"), "unknown", help);
    }

    fn group(&mut self, group: &Node) {
        let (apart, together) = (group.get("apart"), group.get("together"));
        if let (Some(_), Some(together)) = (apart, together) {
            self.wrong(
                together,
                "a group cannot have both `together` and `apart`",
                "both are given",
                "make two groups",
            );
        }
        let at_a_time = group.get("one_at_a_time").is_some_and(|node| node.text() == Some("true"));
        let Some(vms) = group.get("vms") else { return };
        if apart.is_none() && together.is_none() && !at_a_time {
            let help = "give `apart: host`, `together: host` or `one_at_a_time: true`";
            self.wrong(group, "this group has no effect on its VMs", "no effect", help);
        }
        if vms.items().len() < 2 {
            self.wrong(
                vms,
                "a group must have at least two VMs",
                "fewer than two",
                "add the other VMs, or remove the group",
            );
        }
        let mut seen: HashMap<&str, &Node> = HashMap::new();
        for vm in vms.items() {
            if let Some(name) = vm.text()
                && seen.insert(name, vm).is_some()
            {
                self.wrong(vm, format!("`{name}` is in the group twice"), "again", "remove one of the two");
            }
        }
    }

    fn above_zero(&mut self, parent: &Node, key: &str) {
        let Some(node) = parent.get(key) else { return };
        if node.to_json().as_f64().is_some_and(|number| number <= 0.0) {
            let help = "leave the field out for the default";
            self.wrong(node, format!("`{key}` must be above 0"), "no VM could ever move", help);
        }
    }
}

/// Groups that contradict each other: a chain of groups keeps two VMs together that another group keeps apart.
fn contradictions(file: &Arc<SourceFile>, root: &Node, groups: &[Group]) -> Vec<Problem> {
    let nodes = root.get("groups").map(Node::items).unwrap_or_default();
    let mut found = Vec::new();
    for (apart, node) in groups.iter().zip(nodes) {
        let Some((AffinityRule::Apart, scope)) = apart.rule else { continue };
        // VMs on one host are in one rack as well, and VMs that may not share a rack may not share a host.
        let binds = |group: &Group| match group.rule {
            Some((AffinityRule::Together, GroupScope::Host)) => true,
            Some((AffinityRule::Together, GroupScope::Rack)) => scope == GroupScope::Rack,
            _ => false,
        };
        let together: Vec<&Group> = groups.iter().filter(|group| binds(group)).collect();
        for (at, first) in apart.vms.iter().enumerate() {
            let reached = reach(first, &together);
            let other = apart.vms.iter().skip(at + 1).find_map(|vm| Some((vm, reached.get(vm.as_str())?)));
            let Some((other, chain)) = other else { continue };
            let place = node.get("vms").unwrap_or(node);
            let message = format!(
                "the groups contradict each other: `{first}` and `{other}` must be both apart and together"
            );
            let label = format!("`{}` keeps them apart", apart.name);
            let help = format!(
                "{} keep them together: remove one of the two VMs from one of these groups",
                quoted(chain)
            );
            found.push(Problem::at(file, place.span.clone(), message).label(label).help(help));
            break;
        }
    }
    found
}

/// All VMs that must be together with `first`, each with the groups that demand this.
fn reach<'a>(first: &'a str, together: &[&'a Group]) -> HashMap<&'a str, Vec<&'a str>> {
    let mut reached: HashMap<&str, Vec<&str>> = HashMap::from([(first, Vec::new())]);
    let mut open = vec![first];
    while let Some(vm) = open.pop() {
        let so_far = reached.get(vm).cloned().unwrap_or_default();
        for group in together.iter().filter(|group| group.vms.iter().any(|member| member == vm)) {
            for member in &group.vms {
                if !reached.contains_key(member.as_str()) {
                    let mut chain = so_far.clone();
                    chain.push(&group.name);
                    reached.insert(member, chain);
                    open.push(member);
                }
            }
        }
    }
    reached
}

fn quoted(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
