# shellcheck shell=bash
# Programs of the hosts, by name. Their logs are /var/log/lab/NAME.log on their host.

declare -A SERVICE_USER=([mariadb]=mysql [rabbitmq]=rabbitmq [keystone]=keystone [placement]=placement [glance]=glance [tls]=root)
declare -A SERVICE_COMMAND=(
  [mariadb]=mariadbd
  [rabbitmq]="env HOME=/var/lib/rabbitmq /usr/lib/rabbitmq/bin/rabbitmq-server"
  [keystone]="uwsgi_python3 --http-socket $CONTROL:5000 --ini /etc/keystone/keystone-uwsgi.ini"
  [placement]="uwsgi_python3 --http-socket $CONTROL:8778 --ini /etc/placement/placement-api-uwsgi.ini"
  [neutron]="python3 /usr/local/bin/neutron-stub $CONTROL br0"
  [glance]="glance-api --config-file /etc/glance/glance-api.conf"
  [nova-api]=nova-api
  [nova-conductor]=nova-conductor
  [nova-scheduler]=nova-scheduler
  [nova-compute]=nova-compute
  [tls]="stunnel4 /etc/stunnel/lab.conf"
)

host_boot() {
  host_process "$1" >/dev/null || host_start "$1"
  wait_until 20 test -e "$(host_dir "$1")/run/booted" || die "host $1 did not finish starting; see $(host_dir "$1")/boot.log"
}

service_command() {
  need_host "${1:-}"
  local host=$1 verb=${2:-} name=${3:-}
  [[ -n ${SERVICE_COMMAND[$name]:-} ]] || die "'$name' is no service; they are: ${!SERVICE_COMMAND[*]}"
  case $verb in
    start) service_start "$host" "$name" ;;
    stop) service_signal "$host" "$name" TERM && service_ends "$host" "$name" ;;
    kill) service_signal "$host" "$name" KILL && service_ends "$host" "$name" ;;
    pause) service_signal "$host" "$name" STOP ;;
    resume) service_signal "$host" "$name" CONT ;;
    *) die "usage: nova service HOST start|stop|kill|pause|resume NAME" ;;
  esac
}

service_runs() { host_exec "$1" sh -c '[ -s "$1" ] && kill -s 0 -- "-$(cat "$1")"' sh "/run/lab/$2.pid" 2>/dev/null; }

service_start() {
  service_runs "$1" "$2" && return
  # shellcheck disable=SC2016,SC2086 # for the host's shell; a command with its arguments
  host_exec "$1" sh -c 'name=$1 user=$2; shift 2
    mkdir -p /run/lab /var/log/lab
    setsid setpriv --reuid "$user" --regid "$user" --init-groups "$@" </dev/null >>/var/log/lab/$name.log 2>&1 &
    echo $! >/run/lab/$name.pid' sh "$2" "${SERVICE_USER[$2]:-nova}" ${SERVICE_COMMAND[$2]}
}

# Each is the leader of a group: uwsgi and nova-api have workers.
service_signal() {
  service_runs "$1" "$2" || die "$2 does not run on host $1"
  # shellcheck disable=SC2016
  host_exec "$1" sh -c 'kill -s "$2" -- "-$(cat "/run/lab/$1.pid")"' sh "$2" "$3"
}

service_ends() {
  wait_until 30 service_is_gone "$@" || die "$2 on host $1 does not end"
}

service_is_gone() { ! service_runs "$@"; }

# host_write HOST PATH: standard input becomes the file.
host_write() {
  # shellcheck disable=SC2016
  host_exec "$1" sh -c 'cat >"$1"' sh "$2"
}

# host_template HOST PATH FILE...: the file is made of these of etc/, with the names and addresses of the host.
host_template() {
  local host=$1 path=$2
  shift 2
  (cd "$NOVA_DIR/etc" && cat "$@") |
    sed "s/@CONTROL@/$CONTROL/; s/@HOST@/$(hostname_of "$host")/; s/@MANAGEMENT@/$(management_address "$host")/; s/@MIGRATION@/$(migration_address "$host")/" |
    host_write "$host" "$path"
}
