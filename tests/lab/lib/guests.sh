# shellcheck shell=bash
# Guests: written as libvirt domains, started through the virsh of the host they shall run on.

guest_command() {
  local command=${1:-}
  shift || true
  case $command in
    start) guest_start "$@" ;;
    stop) guest_stop "$@" ;;
    list) guest_list ;;
    console) guest_console "$@" ;;
    exec) guest_exec "$@" ;;
    *) die "usage: lab guest start|stop|list|console|exec; see lab help" ;;
  esac
}

guest_start() {
  need_root
  local name=${1:-} on='' image=small memory='' vcpus=1 machine=pc-q35-7.2 workload=idle agent=on nic=1 attach=bridge:br0 backing=ram wait=120
  [[ $name =~ ^[a-z][a-z0-9-]*$ ]] || die "usage: lab guest start NAME --on HOST ...; a name is a-z, 0-9 and -, '$name' is not"
  shift
  while (($# > 0)); do
    (($# > 1)) || die "guest start: $1 wants a value"
    case $1 in
      --on) on=$2 ;;
      --image) image=$2 ;;
      --memory) memory=$2 ;;
      --vcpus) vcpus=$2 ;;
      --machine) machine=$2 ;;
      --workload) workload=$2 ;;
      --agent) agent=$2 ;;
      --nic) nic=$2 ;;
      --attach) attach=$2 ;;
      --backing) backing=$2 ;;
      --wait) wait=$2 ;;
      *) die "guest start: there is no option '$1'; see lab help" ;;
    esac
    shift 2
  done
  need_host "$on"
  case $image in
    small) memory=${memory:-256} ;;
    software)
      memory=${memory:-768}
      image_command software
      ;;
    kvm)
      memory=${memory:-256} machine=pc-i440fx-7.2 agent=none nic=0
      cache_locked kvm_guest_complete
      host_exec "$on" test -c /dev/kvm || die "host $on has no /dev/kvm; run: lab up --kvm"
      ;;
    *) die "--image is small, software or kvm, not '$image'" ;;
  esac
  [[ $agent =~ ^(on|none|hang|nofile|garbage|flood|mute|late|other)$ ]] ||
    die "--agent is on, none, hang, nofile, garbage, flood, mute, late or other, not '$agent'"
  [[ $attach =~ ^(bridge|direct|network|ovs):[a-z0-9.-]+$ ]] ||
    die "--attach is bridge:NAME, direct:DEVICE, network:NAME or ovs:BRIDGE[.VLAN], not '$attach'"
  [[ $nic =~ ^[01]$ ]] || die "--nic is 0 or 1, not '$nic'"
  [[ $backing =~ ^(ram|memfd|hugepages)$ ]] || die "--backing is ram, memfd or hugepages, not '$backing'"
  [[ $memory =~ ^[0-9]+$ && $memory -ge 128 ]] || die "--memory is in MiB and at least 128, not '$memory'"
  [[ $vcpus =~ ^[1-9][0-9]*$ ]] || die "--vcpus is a number above 0, not '$vcpus'"
  [[ $wait =~ ^[0-9]+$ ]] || die "--wait is in seconds, not '$wait'"
  local boot
  boot=$(guest_boot_path "$image")
  host_exec "$on" test -e "$boot" ||
    die "host $on does not see this checkout's guest image ($boot); run: lab up"
  local dir address there
  if there=$(guest_host "$name"); then
    die "there is a guest $name on host $there already; stop it first: lab guest stop $name"
  fi
  dir=$LAB_STATE/guests/$name
  address=$(guest_claim_address "$name") || die "guest $name got no address; is the lab up?"
  : >"$dir/console.log"
  local define=guest_xml
  [[ $image != kvm ]] || define=kvm_guest_xml
  "$define" "$name" "$memory" "$vcpus" "$machine" "$agent" "${nic/1/$attach}" "$boot" \
    "vmgate.name=$name vmgate.address=$address/24 vmgate.gateway=$BUSINESS_GATEWAY vmgate.agent=$agent vmgate.workload=$(guest_words "$workload")" \
    "$backing" >"$dir/domain.xml"
  host_exec "$on" virsh -q define "/lab/guests/$name/domain.xml" >/dev/null || {
    rm -f "$dir/address"
    die "host $on does not take the definition $dir/domain.xml"
  }
  if ! host_exec "$on" virsh -q start "$name" >/dev/null; then
    host_exec "$on" virsh -q undefine "$name" >/dev/null || true
    rm -f "$dir/address"
    die "host $on could not start the guest $name; its QEMU's log: lab host $on cat /var/log/libvirt/qemu/$name.log"
  fi
  ((wait > 0)) || return 0
  wait_until "$wait" grep -q 'guest ready' "$dir/console.log" || {
    tail -n 15 "$dir/console.log" >&2
    die "guest $name was not ready within $wait s; its console: $dir/console.log"
  }
  case $agent in
    on | nofile)
      # Not guest-ping: sent through virsh it would taint the domain.
      wait_until "$wait" host_exec "$on" virsh -q guestinfo "$name" --hostname ||
        die "the agent of guest $name does not answer within $wait s"
      ;;
  esac
}

guest_stop() {
  need_root
  local name=${1:-} host
  [[ $name =~ ^[a-z][a-z0-9-]*$ ]] || die "usage: lab guest stop NAME"
  for host in "${ALL_HOSTS[@]}"; do
    host_process "$host" >/dev/null || continue
    host_exec "$host" sh -c 'virsh -q destroy "$1"; virsh -q undefine --managed-save --snapshots-metadata "$1"' sh "$name" >/dev/null 2>&1 || true
    ! host_exec "$host" virsh -q domstate "$name" >/dev/null 2>&1 ||
      die "guest $name is still on host $host; see: lab host $host virsh list --all"
  done
  rm -rf "$LAB_STATE/guests/$name"
}

guest_list() {
  need_root
  local host name
  for host in "${ALL_HOSTS[@]}"; do
    host_process "$host" >/dev/null || continue
    for name in $(host_exec "$host" virsh -q list --all --name); do
      printf '%s\t%s\t%s\t%s\n' "$name" "$host" "$(host_exec "$host" virsh -q domstate "$name" | head -n 1)" \
        "$(cat "$LAB_STATE/guests/$name/address" 2>/dev/null || echo -)"
    done
  done
}

guest_console() {
  [[ -e $LAB_STATE/guests/${1:-}/console.log ]] || die "there is no console of a guest '${1:-}'"
  cat "$LAB_STATE/guests/$1/console.log"
}

# Runs a command inside through the agent's guest-exec and ends as it ended. Libvirt marks the domain
# tainted (custom-ga-command) from then on.
guest_exec() {
  need_root
  local name=${1:-} host reply pid words='' word
  (($# > 1)) || die "usage: lab guest exec NAME CMD..."
  host=$(guest_host_running "$name") || die "there is no running guest $name; see: lab guest list"
  for word in "${@:3}"; do
    word=${word//\\/\\\\}
    words+=${words:+,}\"${word//\"/\\\"}\"
  done
  reply=$(guest_ask "$host" "$name" "{\"execute\":\"guest-exec\",\"arguments\":{\"path\":\"$2\",\"arg\":[$words],\"capture-output\":true}}") ||
    die "the agent of $name does not run commands: $reply"
  pid=$(grep -o '"pid":[0-9]*' <<<"$reply" | cut -d: -f2)
  while reply=$(guest_ask "$host" "$name" "{\"execute\":\"guest-exec-status\",\"arguments\":{\"pid\":$pid}}"); do
    if [[ $reply == *'"exited":true'* ]]; then
      guest_reply_data out-data <<<"$reply"
      guest_reply_data err-data <<<"$reply" >&2
      return "$(grep -o '"exitcode":[0-9]*' <<<"$reply" | cut -d: -f2)"
    fi
    sleep 0.1
  done
  die "the agent of $name stopped answering: $reply"
}

guest_ask() { host_exec "$1" virsh -q qemu-agent-command --timeout 10 "$2" "$3" 2>&1; }

guest_reply_data() { grep -o "\"$1\":\"[^\"]*\"" | cut -d'"' -f4 | base64 -d || true; }

# The host that knows the guest, running or not.
guest_host() { guest_host_where "$1" 'virsh -q domstate "$1"'; }
guest_host_running() { guest_host_where "$1" 'virsh -q domstate "$1" | grep -q running'; }

guest_host_where() {
  local host
  for host in "${ALL_HOSTS[@]}"; do
    host_process "$host" >/dev/null || continue
    if host_exec "$host" sh -c "$2" sh "$1" >/dev/null 2>&1; then
      echo "$host"
      return
    fi
  done
  return 1
}

# On the kernel command line a comma stands for the space inside a workload; + joins two of them.
guest_words() {
  local text=$1
  text=$(sed -E 's/ *\+ */+/g; s/^ +| +$//g; s/ +/,/g' <<<"$text")
  [[ $text =~ ^[A-Za-z0-9_.,:=/+-]+$ ]] || die "a workload is made of words and key=value, '$1' is not"
  echo "$text"
}

# The first address that no other guest has.
guest_claim_address() {
  local name=$1 dir=$LAB_STATE/guests/$1 last
  mkdir -p "$dir"
  (
    flock 8
    [[ ! -e $dir/address ]] || exit 0
    for ((last = FIRST_GUEST; last < 250; last++)); do
      grep -qxF "$BUSINESS_NET.$last" "$LAB_STATE"/guests/*/address 2>/dev/null && continue
      echo "$BUSINESS_NET.$last" >"$dir/address"
      exit 0
    done
    exit 1
  ) 8>"$LAB_STATE/guests.lock" && cat "$dir/address"
}

# Path of the image on the hosts: each has the whole cache, so that checkouts with different images share one lab.
guest_boot_path() {
  case $1 in
    small) echo "/lab/cache/$(basename "$(image_path)")" ;;
    software) echo "/lab/cache/$(basename "$(software_path)")" ;;
    kvm) echo "/lab/cache/$(basename "$(kvm_guest_path)")" ;;
  esac
}

guest_mac() {
  local h
  h=$(printf '%s' "$1" | sha256sum)
  echo "52:54:00:${h:0:2}:${h:2:2}:${h:4:2}"
}

# Memory backing of the guest. Huge pages must be reserved: sysctl vm.nr_hugepages=N.
guest_backing_xml() {
  case $1 in
    memfd) echo "<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>" ;;
    hugepages) echo "<memoryBacking><hugepages/></memoryBacking>" ;;
  esac
}

# guest_source_xml KIND:NAME
guest_source_xml() {
  local name=${1#*:}
  case $1 in
    bridge:*) echo "<source bridge='$name'/>" ;;
    direct:*) echo "<source dev='$name' mode='bridge'/>" ;;
    network:*) echo "<source network='$name'/>" ;;
    ovs:*)
      # Check sums in the guest: a switch in user space passes on what it gets.
      local none="csum='off' gso='off' tso4='off' tso6='off' ecn='off' ufo='off'"
      [[ $name != *.* ]] || echo "<vlan><tag id='${name#*.}'/></vlan>"
      echo "<source bridge='${name%.*}'/><virtualport type='openvswitch'/><driver><host $none/><guest ${none/gso=\'off\' /}/></driver>"
      ;;
  esac
}

# guest_xml NAME MEMORY VCPUS MACHINE AGENT NIC IMAGE CMDLINE BACKING
guest_xml() {
  local boot=$7
  cat <<XML
<domain type='qemu'>
  <name>$1</name>
  <uuid>$(uuid_of "guest $1")</uuid>
  <memory unit='MiB'>$2</memory>
  $(guest_backing_xml "$9")
  <vcpu>$3</vcpu>
  <os>
    <type arch='x86_64' machine='$4'>hvm</type>
    <kernel>$boot/vmlinuz</kernel>
    <initrd>$boot/initramfs</initrd>
    <cmdline>console=ttyS0 quiet panic=1 no_timer_check $8</cmdline>
  </os>
  <features><acpi/><apic/></features>
  <cpu mode='custom' match='exact' check='none'><model fallback='forbid'>Nehalem</model></cpu>
  <clock offset='utc'/>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <controller type='usb' model='none'/>
    <serial type='file'><source path='/lab/guests/$1/console.log' append='on'/></serial>
    <memballoon model='virtio'/>
    <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>
XML
  [[ $boot != */guest-software-* ]] || cat <<XML
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/>
      <source file='$boot/disk.img'/>
      <target dev='vda' bus='virtio'/>
      <readonly/>
      <shareable/>
    </disk>
XML
  [[ $6 == 0 ]] || cat <<XML
    <interface type='$(sed 's/:.*//; s/ovs/bridge/' <<<"$6")'>
      <mac address='$(guest_mac "$1")'/>
      $(guest_source_xml "$6")
      <model type='virtio'/>
    </interface>
XML
  [[ $5 == none ]] || cat <<XML
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
XML
  echo "  </devices>"
  echo "</domain>"
}
