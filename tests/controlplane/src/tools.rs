//! The tools and what they are built from.
//!
//! To add one: `go get -tool <package>@<version>` in a module below `tools/` (a new one where it pins other versions of
//! what the present ones use), and a line here.

/// A Go module of ours whose `go.mod` and `go.sum` pin the tools in it.
#[derive(Debug)]
pub(crate) struct Module {
    /// Folder below `tools/`, and beginning of the folder in the cache.
    pub(crate) name: &'static str,
    pub(crate) go_mod: &'static str,
    pub(crate) go_sum: &'static str,
    /// The module whose version the tools are stamped with.
    pub(crate) source: &'static str,
    /// Link-time variables that carry the version: without, some call themselves v0.0.0 and their clients cannot parse
    /// that. `{version}`, `{major}` and `{minor}` are replaced.
    pub(crate) stamp: &'static [&'static str],
    pub(crate) tools: &'static [Tool],
}

/// A program.
#[derive(Debug)]
pub(crate) struct Tool {
    pub(crate) name: &'static str,
    pub(crate) package: &'static str,
    /// Measured on two cores with empty caches, downloads included.
    pub(crate) cold_seconds: u64,
}

macro_rules! sums {
    ($name:literal) => {
        (include_str!(concat!("../tools/", $name, "/go.mod")), include_str!(concat!("../tools/", $name, "/go.sum")))
    };
}

const ETCD: (&str, &str) = sums!("etcd");
const KUBE: (&str, &str) = sums!("kube");
const HELM: (&str, &str) = sums!("helm");

pub(crate) const MODULES: [Module; 3] = [
    Module {
        name: "etcd",
        go_mod: ETCD.0,
        go_sum: ETCD.1,
        source: "go.etcd.io/etcd/server/v3",
        stamp: &[],
        tools: &[tool("etcd", "go.etcd.io/etcd/server/v3", 50)],
    },
    Module {
        name: "kube",
        go_mod: KUBE.0,
        go_sum: KUBE.1,
        source: "k8s.io/kubernetes",
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
    },
    Module {
        name: "helm",
        go_mod: HELM.0,
        go_sum: HELM.1,
        source: "helm.sh/helm/v4",
        stamp: &["helm.sh/helm/v4/internal/version.version={version}"],
        tools: &[tool("helm", "helm.sh/helm/v4/cmd/helm", 120)],
    },
];

const fn tool(name: &'static str, package: &'static str, cold_seconds: u64) -> Tool {
    Tool { name, package, cold_seconds }
}

/// All tools, in the order in which they are built.
pub(crate) fn all() -> impl Iterator<Item = &'static Tool> {
    MODULES.iter().flat_map(|module| module.tools)
}

impl Module {
    /// The pinned version of the source, such as `v1.37.2`.
    pub(crate) fn version(&self) -> &'static str {
        self.go_mod
            .lines()
            .find_map(|line| {
                let mut words = line.split_whitespace();
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
                let pinned =
                    module.go_mod.lines().any(|line| line.trim_start().trim_start_matches("tool ") == tool.package);
                assert!(pinned, "{} is no tool of {}", tool.package, module.name);
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
