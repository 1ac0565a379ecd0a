# Gathers all facts in one go and changes nothing. Each section begins with "=name"; its lines begin with a space, so that no
# content is taken for a section. ROOT is put before every path (empty on a real machine), SUDO is how root's eyes are borrowed.
LC_ALL=C; export LC_ALL
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin:/usr/lib/wsl/lib
limit() { if command -v timeout >/dev/null; then timeout "$@"; else shift; "$@"; fi; }
section() { name=$1; shift; echo "=$name"; { "$@"; } 2>/dev/null </dev/null | sed 's/^/ /'; }
said() { "$@" 2>&1; echo "exit $?"; }
have() { command -v "$1" >/dev/null; }
there() { for f in "$@"; do [ -e "$f" ] && echo "${f#"$ROOT"}"; done; }

access() {
	echo "uid $(id -u)"; echo "user $(id -un)"; echo "home $HOME"
	if [ "$(id -u)" = 0 ]; then echo "root yes"; elif $SUDO true; then echo "root sudo"; else echo "root no"; fi
	echo "clock $(date +%s)"; echo "proxy ${https_proxy:-$HTTPS_PROXY}"
}
platform() {
	echo "arch $(dpkg --print-architecture || uname -m)"; echo "kernel $(uname -r)"
	[ -e "$ROOT/dev/dxg" ] && echo "wsl yes"
	{ [ -e "$ROOT/etc/nv_tegra_release" ] || tr '\0' '\n' <"$ROOT/proc/device-tree/compatible" | grep -q '^nvidia,tegra'; } && echo "tegra yes"
	{ [ -e "$ROOT/.dockerenv" ] || [ -e "$ROOT/run/.containerenv" ] || systemd-detect-virt -c -q; } && echo "container yes"
	have apt-get && echo "apt yes"
	have systemctl && [ -d "$ROOT/run/systemd/system" ] && echo "systemd yes"
	aptlock
}
# A lock of apt shows in /proc/locks by its inode, for every user.
aptlock() {
	for f in lib/dpkg/lock-frontend lib/dpkg/lock lib/apt/lists/lock; do
		inode=$(stat -c %i "$ROOT/var/$f") && awk -v i="$inode" '{n=split($6,a,":"); if (a[n]==i) print "aptlock " $5}' "$ROOT/proc/locks"
	done | head -n 1
}
hardware() {
	for d in "$ROOT"/sys/bus/pci/devices/*; do
		[ "$(cat "$d/vendor")" = 0x10de ] || continue
		echo "${d##*/} $(cat "$d/class") $(cat "$d/device") $(basename "$(readlink "$d/driver")")"
	done
}
modules() { grep -E '^(nvidia|nouveau)' "$ROOT/proc/modules" | cut -d' ' -f1; }
smi() { have nvidia-smi && said limit 30 nvidia-smi -L; }
gpus() { limit 30 nvidia-smi --query-gpu=index,uuid,name,memory.total,mig.mode.current,compute_mode,driver_version --format=csv,noheader,nounits; }
cuda() { limit 30 nvidia-smi | grep -o 'CUDA [A-Za-z ]*Version: *[0-9.]*'; }
secureboot() {
	if have mokutil; then mokutil --sb-state 2>&1; return; fi
	for f in "$ROOT"/sys/firmware/efi/efivars/SecureBoot-*; do [ -e "$f" ] && od -An -tu1 -j4 "$f" | grep -q 1 && echo "SecureBoot enabled"; done
}
module() {
	for field in filename version signer; do echo "$field $(modinfo -F $field nvidia)"; done
	file=$(modinfo -F filename nvidia) && echo "changed $(stat -c %Y "$ROOT$file")"
}
reboot() { there "$ROOT/var/run/reboot-required"; cat "$ROOT/var/run/reboot-required.pkgs"; }
headers() { there "$ROOT/lib/modules/$(uname -r)/build"; }
docker_program() {
	have docker || return
	echo "path $(readlink -f "$(command -v docker)")"; echo "called $(command -v docker)"; echo "says $(docker --version 2>/dev/null)"
	have dockerd && echo "server yes"
	echo "host $DOCKER_HOST"
}
# Docker's client answers without its server, too; then root may be answered better, and if not, the client says why.
docker_info() {
	have docker || return
	answer=$(limit 20 docker info --format '{{json .}}' 2>/dev/null)
	case $answer in
	*'"ServerVersion":"'[0-9]* | *'"host":'*) ;;
	*)
		[ "$(id -u)" = 0 ] || better=$(limit 20 $SUDO docker info --format '{{json .}}' 2>/dev/null)
		case $better in *'"ServerVersion":"'[0-9]*) answer=$better ;; esac
		;;
	esac
	echo "$answer"
}
docker_complaint() { have docker && limit 20 docker info --format '{{.ServerVersion}}' 2>&1 >/dev/null | head -n 2; }
daemon_json() { cat "$ROOT/etc/docker/daemon.json" || { [ -e "$ROOT/etc/docker/daemon.json" ] && $SUDO cat "$ROOT/etc/docker/daemon.json"; }; }
packages() {
	dpkg-query -W -f '${db:Status-Abbrev}|${Package}|${Version}\n' 'nvidia-container*' 'libnvidia-container*' 'nvidia-docker*'
}
sources() { grep -rsH 'nvidia\.github\.io' "$ROOT/etc/apt/sources.list" "$ROOT/etc/apt/sources.list.d" | sed "s#^$ROOT##"; }
keys() {
	there "$ROOT"/etc/apt/trusted.gpg.d/*nvidia*
	[ -s "$ROOT/etc/apt/trusted.gpg" ] && apt-key list | grep -i 'nvidia.*cudatools\|nvidia corporation' | sed 's/^/apt-key /'
}
hooks() { there "$ROOT"/usr/share/containers/oci/hooks.d/*nvidia*.json "$ROOT"/etc/containers/oci/hooks.d/*nvidia*.json; }
keyring() { there "$ROOT/usr/share/keyrings/nvidia-container-toolkit-keyring.gpg"; }
cdi_specs() {
	for f in "$ROOT"/etc/cdi/*nvidia* "$ROOT"/var/run/cdi/*nvidia*; do
		[ -f "$f" ] && echo "$(stat -c %Y "$f") $(grep -om1 'cdiVersion"\{0,1\}: *"\{0,1\}[0-9.]*' "$f" | grep -o '[0-9.]*$') ${f#"$ROOT"}"
	done
}
cdi_devices() { have nvidia-ctk && said nvidia-ctk cdi list; }
cdi_units() { for u in nvidia-cdi-refresh.path nvidia-cdi-refresh.service; do echo "$u $(systemctl is-enabled $u)"; done; }
disk() { df -Pk "$ROOT/usr" | tail -n 1; }
network() {
	[ -n "$SITE" ] || return
	if have curl; then said curl -fsSI -o /dev/null -m 15 "$SITE/gpgkey"; elif have wget; then said wget -q --spider -T 15 "$SITE/gpgkey"; fi
}

section access access
section os cat "$ROOT/etc/os-release"
section platform platform
section hardware hardware
section modules modules
section driver cat "$ROOT/proc/driver/nvidia/version"
section smi smi
section gpus gpus
section cuda cuda
section secureboot secureboot
section module module
section dkms dkms status
section reboot reboot
section headers headers
section docker docker_program
section info docker_info
section complaint docker_complaint
section daemon daemon_json
section packages packages
section sources sources
section keys keys
section hooks hooks
section keyring keyring
section specs cdi_specs
section devices cdi_devices
section units cdi_units
section disk disk
section network network
echo "=end"
exit 0
