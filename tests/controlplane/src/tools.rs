//! The tools and what they are built from.
//!
//! To add one: `go get -tool <package>@<version>` in a module below `tools/` (a new one where it pins other versions of
//! what the present ones use), and a line here. A module may also have a program of our own, and one may be there only to
//! pin files that a Go module ships.

/// A Go module of ours whose `go.mod` and `go.sum` pin the tools in it.
#[derive(Debug)]
pub(crate) struct Module {
    /// Folder below `tools/`, where no other module is pinned there too, and beginning of the folder in the cache.
    pub(crate) name: &'static str,
    pub(crate) go_mod: &'static str,
    pub(crate) go_sum: &'static str,
    /// Name and text of the Go files, where the program is our own.
    pub(crate) files: &'static [(&'static str, &'static str)],
    /// Build tags, separated by commas.
    pub(crate) tags: &'static str,
    /// The module whose version the tools are stamped with.
    pub(crate) source: &'static str,
    /// Link-time variables that carry the version: without, some call themselves v0.0.0 and their clients cannot parse
    /// that. `{version}`, `{major}` and `{minor}` are replaced.
    pub(crate) stamp: &'static [&'static str],
    pub(crate) tools: &'static [Tool],
}

/// A program, or a folder of files.
#[derive(Debug)]
pub(crate) struct Tool {
    pub(crate) name: &'static str,
    pub(crate) origin: Origin,
    /// On two cores with empty caches, downloads included: measured, or in proportion to the processor time of one that was.
    pub(crate) cold_seconds: u64,
}

/// What a tool is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A package of Go, compiled.
    Package(&'static str),
    /// A folder in the module's source, copied.
    Folder(&'static str),
}

macro_rules! sums {
    ($name:literal) => {
        (include_str!(concat!("../tools/", $name, "/go.mod")), include_str!(concat!("../tools/", $name, "/go.sum")))
    };
}

const ETCD: (&str, &str) = sums!("etcd");
const KUBE: (&str, &str) = sums!("kube");
const HELM: (&str, &str) = sums!("helm");
const HELM_UNITTEST: (&str, &str) = sums!("helm-unittest");
const HELM_DOCS: (&str, &str) = sums!("helm-docs");
const KUBECONFORM: (&str, &str) = sums!("kubeconform");
const KUBE_SCORE: (&str, &str) = sums!("kube-score");
const PROMTOOL: (&str, &str) = sums!("promtool");
const PROMETHEUS_OPERATOR: (&str, &str) = sums!("prometheus-operator");
const FLUX: (&str, &str) = sums!("flux");
const HEALTH: (&str, &str) = sums!("health");
const IMAGE: (&str, &str) = sums!("image");

pub(crate) const MODULES: [Module; 14] = [
    Module {
        tools: &[tool("etcd", "go.etcd.io/etcd/server/v3", 50)],
        ..module("etcd", ETCD, "go.etcd.io/etcd/server/v3")
    },
    Module {
        stamp: &[
            "k8s.io/component-base/version.gitVersion={version}",
            "k8s.io/component-base/version.gitMajor={major}",
            "k8s.io/component-base/version.gitMinor={minor}",
        ],
        tools: &[
            tool("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver", 240),
            tool("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager", 80),
            tool("kubectl", "k8s.io/kubernetes/cmd/kubectl", 35),
        ],
        ..module("kube", KUBE, "k8s.io/kubernetes")
    },
    Module {
        stamp: &["helm.sh/helm/v4/internal/version.version={version}"],
        tools: &[tool("helm", "helm.sh/helm/v4/cmd/helm", 120)],
        ..module("helm", HELM, "helm.sh/helm/v4")
    },
    Module {
        stamp: &["github.com/helm-unittest/helm-unittest/internal/build.version={version}"],
        tools: &[tool("helm-unittest", "github.com/helm-unittest/helm-unittest/cmd/helm-unittest", 40)],
        ..module("helm-unittest", HELM_UNITTEST, "github.com/helm-unittest/helm-unittest")
    },
    Module {
        stamp: &["main.version={version}"],
        tools: &[tool("helm-docs", "github.com/norwoodj/helm-docs/cmd/helm-docs", 8)],
        ..module("helm-docs", HELM_DOCS, "github.com/norwoodj/helm-docs")
    },
    Module {
        stamp: &["main.version={version}"],
        tools: &[tool("kubeconform", "github.com/yannh/kubeconform/cmd/kubeconform", 5)],
        ..module("kubeconform", KUBECONFORM, "github.com/yannh/kubeconform")
    },
    Module {
        stamp: &["main.version={version}"],
        tools: &[tool("kube-score", "github.com/zegl/kube-score/cmd/kube-score", 25)],
        ..module("kube-score", KUBE_SCORE, "github.com/zegl/kube-score")
    },
    Module {
        // Rules are checked without a cloud to discover targets in, and the clients of all clouds take long to compile.
        tags: "remove_all_sd",
        stamp: &["github.com/prometheus/common/version.Version={version}"],
        tools: &[tool("promtool", "github.com/prometheus/prometheus/cmd/promtool", 100)],
        ..module("promtool", PROMTOOL, "github.com/prometheus/prometheus")
    },
    Module {
        tools: &[folder("prometheus-operator-crds", "example/prometheus-operator-crd")],
        ..module("prometheus-operator", PROMETHEUS_OPERATOR, "github.com/prometheus-operator/prometheus-operator")
    },
    // Three modules of Flux, pinned in one file.
    Module {
        tools: &[folder("flux-source-crds", "config/crd/bases")],
        ..module("flux-source", FLUX, "github.com/fluxcd/source-controller")
    },
    Module {
        tools: &[folder("flux-kustomize-crds", "config/crd/bases")],
        ..module("flux-kustomize", FLUX, "github.com/fluxcd/kustomize-controller")
    },
    Module {
        tools: &[folder("flux-helm-crds", "config/crd/bases")],
        ..module("flux-helm", FLUX, "github.com/fluxcd/helm-controller")
    },
    Module {
        files: &[
            ("main.go", include_str!("../tools/health/main.go")),
            ("lua.go", include_str!("../tools/health/lua.go")),
        ],
        tools: &[tool("health", OWN, 15)],
        ..module("health", HEALTH, "sigs.k8s.io/cli-utils")
    },
    Module {
        files: &[("main.go", include_str!("../tools/image/main.go"))],
        tools: &[tool("umoci", "github.com/opencontainers/umoci/cmd/umoci", 60), tool("root-certificates", OWN, 5)],
        ..module("image", IMAGE, "github.com/opencontainers/umoci")
    },
];

/// The package of a module of ours.
const OWN: &str = ".";

const fn module(name: &'static str, sums: (&'static str, &'static str), source: &'static str) -> Module {
    Module { name, go_mod: sums.0, go_sum: sums.1, files: &[], tags: "", source, stamp: &[], tools: &[] }
}

const fn tool(name: &'static str, package: &'static str, cold_seconds: u64) -> Tool {
    Tool { name, origin: Origin::Package(package), cold_seconds }
}

const fn folder(name: &'static str, path: &'static str) -> Tool {
    Tool { name, origin: Origin::Folder(path), cold_seconds: 5 }
}

/// All tools, in the order in which they are built.
pub(crate) fn all() -> impl Iterator<Item = &'static Tool> {
    MODULES.iter().flat_map(|module| module.tools)
}

/// A tool and the module that has it.
pub(crate) fn find(name: &str) -> Option<(&'static Module, &'static Tool)> {
    MODULES.iter().find_map(|module| Some((module, module.tools.iter().find(|tool| tool.name == name)?)))
}

impl Module {
    /// The pinned version of the source, such as `v1.37.2`.
    pub(crate) fn version(&self) -> &'static str {
        self.go_mod
            .lines()
            .find_map(|line| {
                let mut words = line.trim_start_matches("require ").split_whitespace();
                (words.next() == Some(self.source)).then(|| words.next()).flatten()
            })
            .unwrap_or_default()
    }

    /// Flags of the Go linker: no debug information, and the version.
    pub(crate) fn linker_flags(&self) -> String {
        let version = self.version();
        let mut numbers = version.trim_start_matches('v').split('.');
        let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
        let mut flags = String::from("-s -w");
        for variable in self.stamp {
            flags.push_str(" -X ");
            flags.push_str(&variable.replace("{version}", version).replace("{major}", major).replace("{minor}", minor));
        }
        flags
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tool_is_pinned_in_its_module() {
        for module in &MODULES {
            assert!(module.version().starts_with('v'), "{} has no version", module.source);
            for tool in module.tools {
                let pinned = match tool.origin {
                    Origin::Package(OWN) => !module.files.is_empty(),
                    Origin::Package(package) => {
                        module.go_mod.lines().any(|line| line.trim_start().trim_start_matches("tool ") == package)
                    }
                    Origin::Folder(_) => module.go_sum.contains(&format!("{} {} h1:", module.source, module.version())),
                };
                assert!(pinned, "{} is no tool of {}", tool.name, module.name);
            }
        }
    }

    #[test]
    fn the_version_is_stamped() {
        let kube = MODULES.iter().find(|module| module.name == "kube").unwrap();
        let flags = kube.linker_flags();
        assert!(flags.contains("version.gitVersion=v1."), "{flags}");
        assert!(flags.contains("version.gitMajor=1 "), "{flags}");
        assert!(!flags.contains('{'), "{flags}");
    }
}
