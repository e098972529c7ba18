package main

import (
	"context"
	"fmt"
	"os"

	_ "github.com/containerd/containerd/v2/cmd/containerd/builtins"
	containerd "github.com/containerd/containerd/v2/cmd/containerd/command"
	ctr "github.com/containerd/containerd/v2/cmd/ctr/app"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/ready"
	_ "github.com/coredns/coredns/plugin/template"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

func init() {
	servers["etcd"] = func() { etcdmain.Main(os.Args) }
	servers["kube-proxy"] = func() { os.Exit(cli.Run(proxy.NewProxyCommand())) }
	servers["kubelet"] = func() { os.Exit(cli.Run(kubelet.NewKubeletCommand(context.Background()))) }
	servers["coredns"] = func() {
		dnsserver.Directives = []string{"errors", "ready", "kubernetes", "template"}
		coremain.Run()
	}
	servers["containerd"] = func() { exit(containerd.App().Run(context.Background(), os.Args)) }
	servers["ctr"] = func() { exit(ctr.New().Run(context.Background(), os.Args)) }
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}
