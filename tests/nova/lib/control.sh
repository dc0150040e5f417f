# shellcheck shell=bash
# The control plane on ctl: filled once, then the lower layer of every start.

# openstack ARGS...: as administrator; without arguments its commands are read from standard input, one a line.
openstack() { host_exec ctl env "${ADMINISTRATOR[@]}" openstack "$@"; }
ADMINISTRATOR=("OS_AUTH_URL=http://$CONTROL:5000/v3" OS_USERNAME=admin OS_PASSWORD=admin OS_PROJECT_NAME=admin
  OS_USER_DOMAIN_NAME=Default OS_PROJECT_DOMAIN_NAME=Default OS_REGION_NAME=RegionOne OS_COMPUTE_API_VERSION=2.92)

control_up() {
  host_boot ctl
  host_exec ctl cat /etc/stunnel/ca.pem >"$LAB_STATE/ca.pem"
  control_start
}

control_start() {
  control_start_backends
  control_start_web
  control_start_nova
}

control_start_backends() {
  # shellcheck disable=SC2016
  host_exec ctl sh -c 'for user in mysql:mysqld rabbitmq:rabbitmq nova:lock/nova glance:lock/glance; do
    install -d -o "${user%%:*}" -g "${user%%:*}" "/run/${user#*:}"; done'
  service_start ctl mariadb
  service_start ctl rabbitmq
  wait_until 60 sql 'select 1' || die "mariadb does not answer; its log: nova host ctl tail /var/log/lab/mariadb.log"
  wait_until 90 control_listens 5672 || die "rabbitmq does not answer; its log: nova host ctl tail /var/log/lab/rabbitmq.log"
}

control_start_web() {
  local name
  for name in keystone placement neutron glance nova-api tls; do service_start ctl "$name"; done
}

# A nova-compute that starts before the conductor listens waits 10 s for its next try.
control_start_nova() {
  local name
  for name in nova-conductor nova-scheduler; do
    service_runs ctl "$name" && continue
    host_exec ctl rm -f "/var/log/lab/$name.log"
    service_start ctl "$name"
  done
  for name in nova-conductor nova-scheduler; do
    wait_until 90 host_exec ctl grep -q 'Join ServiceGroup membership' "/var/log/lab/$name.log" ||
      die "$name does not start; its log: nova host ctl tail /var/log/lab/$name.log"
  done
  local port
  for port in 5000 8774 8778 9292 9696 5443; do
    wait_until 60 control_listens "$port" || die "nothing listens on $CONTROL:$port; logs: nova host ctl ls /var/log/lab"
  done
}

control_listens() { host_exec ctl bash -c ": </dev/tcp/$CONTROL/$1"; }

sql() { host_exec ctl mariadb -Ne "$1"; }

# Fills a control plane on a host whose changed files then become the layer.
control_build() {
  local target begin=$SECONDS upper
  target=$(control_path)
  say "building $(basename "$target") (logs: nova host ctl ls /var/log/lab)"
  root_path() { nova_root_path; }
  host_boot ctl
  control_fill
  upper=$(host_dir ctl)/upper
  stop_recorded "$(host_dir ctl)/init.pid"
  rm -rf --one-file-system "$target.part" "$upper"/{run,tmp,var/log/lab}
  cp -a "$upper" "$target.part"
  sync -f "$target.part"
  mv "$target.part" "$target"
  # shellcheck source=/dev/null
  source "$NOVA_DIR/lib/root.sh"
  say "built $(basename "$target") in $((SECONDS - begin)) s"
}

control_configure() {
  host_template ctl /etc/nova/nova.conf nova.conf database.conf
  host_template ctl /etc/keystone/keystone.conf keystone.conf
  host_template ctl /etc/placement/placement.conf placement.conf
  host_template ctl /etc/glance/glance-api.conf glance-api.conf
  host_template ctl /etc/mysql/mariadb.conf.d/99-lab.cnf mariadb.cnf
  host_template ctl /etc/rabbitmq/rabbitmq.conf rabbitmq.conf
  host_template ctl /etc/rabbitmq/rabbitmq-env.conf rabbitmq-env.conf
  host_template ctl /etc/stunnel/lab.conf stunnel.conf
  host_template ctl /usr/local/bin/neutron-stub neutron-stub
  # shellcheck disable=SC2016
  host_exec ctl sh -ec '
    cd /etc/stunnel
    openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj "/CN=lab authority" -keyout ca.key -out ca.pem 2>/dev/null
    openssl req -newkey rsa:2048 -nodes -subj "/CN=control" -keyout server.key -out server.csr 2>/dev/null
    printf "subjectAltName = IP:%s\n" "$1" >server.ext
    openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -days 3650 -extfile server.ext -out server.crt 2>/dev/null
    cat server.key server.crt >server.pem' sh "$CONTROL"
}

control_fill() {
  local base="http://$CONTROL" name
  control_configure
  control_start_backends
  sql "$(printf 'create database %s;' keystone glance placement nova_api nova nova_cell0)
    create user openstack@'%' identified by 'openstack'; grant all on *.* to openstack@'%';"
  # shellcheck disable=SC2016
  host_exec ctl sh -ec '
    as() { user=$1; shift; setpriv --reuid "$user" --regid "$user" --init-groups "$@" >>/var/log/lab/build.log 2>&1; }
    base=$1
    (as glance glance-manage db_sync; as placement placement-manage db sync) &
    as keystone keystone-manage db_sync
    for keys in fernet credential; do as root keystone-manage "${keys}_setup" --keystone-user keystone --keystone-group keystone; done
    as keystone keystone-manage bootstrap --bootstrap-password admin --bootstrap-region-id RegionOne \
      --bootstrap-public-url "$base:5000/v3/" --bootstrap-internal-url "$base:5000/v3/" --bootstrap-admin-url "$base:5000/v3/"
    as nova nova-manage api_db sync
    as nova nova-manage cell_v2 map_cell0 --database_connection "mysql+pymysql://openstack:openstack@${base#http://}/nova_cell0"
    as nova nova-manage db sync
    as nova nova-manage cell_v2 create_cell --name cell1
    wait' sh "$base" || die "the databases could not be filled; the log: nova host ctl tail /var/log/lab/build.log"
  control_start_web
  wait_until 60 openstack token issue || die "keystone does not answer; its log: nova host ctl tail /var/log/lab/keystone.log"
  openstack >/dev/null <<TEXT
service create --name placement placement
service create --name glance image
service create --name nova compute
service create --name neutron network
endpoint create --region RegionOne placement public $base:8778
endpoint create --region RegionOne image public $base:9292
endpoint create --region RegionOne compute public $base:8774/v2.1
endpoint create --region RegionOne network public $base:9696
region create Tls
endpoint create --region Tls identity public https://$CONTROL:5443/v3
endpoint create --region Tls compute public https://$CONTROL:8443/v2.1
project create web
user create --project web --password member member
role add --project web --user member member
TEXT
  wait_until 60 control_listens 9292 || die "glance does not answer; its log: nova host ctl tail /var/log/lab/glance.log"
  host_exec ctl truncate -s 1M /tmp/disk
  local kernel ramdisk
  openstack >/dev/null <<TEXT
image create --public --container-format aki --disk-format aki --file /lab/cache/$(basename "$(image_path)")/vmlinuz guest-kernel
image create --public --container-format ari --disk-format ari --file /lab/cache/$(basename "$(image_path)")/initramfs guest-ramdisk
TEXT
  kernel=$(openstack image show -f value -c id guest-kernel)
  ramdisk=$(openstack image show -f value -c id guest-ramdisk)
  # Not from standard input: it does not take values with spaces.
  openstack image create --public --container-format bare --disk-format raw --file /tmp/disk --property "kernel_id=$kernel" \
    --property "ramdisk_id=$ramdisk" --property hw_qemu_guest_agent=yes \
    --property 'os_command_line=console=ttyS0 quiet panic=1 no_timer_check vmgate.agent=on vmgate.workload=idle' guest >/dev/null
  openstack flavor create --ram 256 --disk 1 --vcpus 1 small >/dev/null
  control_start_nova
  # The cell then knows its computes, and `up` need not wait until they are found.
  for name in "${COMPUTES[@]}"; do
    host_boot "$name"
    compute_start "$name"
  done
  wait_until 180 control_knows_computes || die "the computes do not come up; logs: nova host a tail /var/log/lab/nova-compute.log"
  for name in "${COMPUTES[@]}"; do stop_recorded "$(host_dir "$name")/init.pid"; done
  # Else they would count as alive for another minute.
  sql "update nova.services set last_seen_up='2020-01-01', updated_at='2020-01-01'"
  for name in nova-api nova-conductor nova-scheduler glance keystone placement rabbitmq mariadb; do
    service_command ctl stop "$name"
  done
}

# By the database: each call of the API costs the client two seconds.
computes_are_up() {
  [[ $(sql "select count(*) from nova.services where \`binary\`='nova-compute' and disabled=0 and last_seen_up > utc_timestamp() - interval 30 second") == "${#COMPUTES[@]}" ]]
}
control_knows_computes() { computes_are_up && [[ $(sql "select count(*) from nova_api.host_mappings") == "${#COMPUTES[@]}" ]]; }
