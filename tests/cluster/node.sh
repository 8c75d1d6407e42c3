# A node in mount and process namespaces of its own, which this shell is the first process of: when it ends, all end.
# Arguments: the node's folder, the cluster's program, the node's name, its address, the archives of images.
set -eu
folder=$1 program=$2 name=$3 address=$4
shift 4

# Kubelet and network plugins write fixed paths; what they write there goes with the node.
mkdir -p /run/netns /run/containerd "$folder/upper" "$folder/work"
mount -t overlay overlay -o "lowerdir=/var,upperdir=$folder/upper,workdir=$folder/work" /var
mount -t tmpfs tmpfs /run/netns
mount -t tmpfs tmpfs /run/containerd

# The kubelet wants these settings of the kernel, and would set them for the whole machine: it sees them set.
while read -r setting value; do
    echo "$value" >"$folder/$setting"
    mount --bind "$folder/$setting" "/proc/sys/$(echo "$setting" | tr . /)"
done <<END
vm.overcommit_memory 1
vm.panic_on_oom 0
kernel.panic 10
kernel.panic_on_oops 1
kernel.keys.root_maxkeys 1000000
kernel.keys.root_maxbytes 25000000
END

containerd --config "$folder/containerd.toml" >"$folder/containerd.log" 2>&1 &
tries=0
until ctr version >/dev/null 2>&1; do
    tries=$((tries + 1))
    [ "$tries" -lt 200 ] || { cat "$folder/containerd.log" >&2; exit 1; }
    sleep 0.1
done
for archive in "$@"; do
    ctr -n k8s.io images import "$archive"
done
exec "$program" kubelet --config "$folder/kubelet.json" --kubeconfig "$folder/kubelet.kubeconfig" \
    --hostname-override "$name" --node-ip "$address" --root-dir "$folder/kubelet" --cert-dir "$folder/pki"
