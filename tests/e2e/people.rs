//! What the chart gives to people, through the cluster's own roles `view`, `edit` and `admin`.

use super::{
    advisories::{may_as, until_may},
    chart::as_chart,
    support::*,
};

const READS: [&str; 3] = ["get", "list", "watch"];
const WRITES: [&str; 5] = ["create", "update", "patch", "delete", "deletecollection"];

#[tokio::test]
async fn the_clusters_own_roles_take_up_those_of_the_chart() {
    let _turn = turn().await;
    // They are the cluster's: no other test's chart may give them anything.
    let lab = Lab::on(plane_of_ones_own().await, "people").await;
    let here = lab.namespace.as_str();
    for role in ["view", "edit", "admin"] {
        lab.kubectl(&["create", "rolebinding", role, "--clusterrole", role, "--user", role, "-n", here]);
    }
    let may = |who: &str, verb: &str, resource: &str, namespace: &str| {
        may_as(&lab, who, namespace, &format!("{verb} {resource}.toolzz.com.br"))
    };

    drop(as_chart(&lab, "scope=cluster,rbac.aggregate=false").await);
    // Nothing that could be taken up, however long one waits.
    let offered = ["get", "clusterroles", "-l", "rbac.authorization.k8s.io/aggregate-to-view", "-o", "name"];
    let offered = String::from_utf8(lab.plane.kubectl(offered).output().unwrap().stdout).unwrap();
    assert!(offered.contains("system:aggregate-to-view") && !offered.contains("toolzz"), "{offered}");
    for who in ["view", "edit", "admin"] {
        // The binding is known, and gives nothing of the kind.
        until_may(&lab, who, here, "get configmaps").await;
        assert!(!may(who, "get", "toolzzcredentials", here), "{who}");
    }

    drop(as_chart(&lab, "scope=cluster").await);
    for (who, verb) in [("view", "get"), ("edit", "get"), ("edit", "create"), ("admin", "get"), ("admin", "create")] {
        until_may(&lab, who, here, &format!("{verb} toolzzcredentials.toolzz.com.br")).await;
    }
    for who in ["view", "edit", "admin"] {
        for resource in ["toolzzcredentials", "toolzzconnections"] {
            for verb in READS.into_iter().chain(WRITES) {
                let so = READS.contains(&verb) || who != "view";
                assert_eq!(may(who, verb, resource, here), so, "{who} {verb} {resource}");
                assert!(!may(who, verb, resource, "kube-system"), "{who} {verb} {resource} elsewhere");
            }
            // What the operator recovers from.
            for verb in ["update", "patch"] {
                let what = format!("{verb} {resource}.toolzz.com.br --subresource=status");
                assert!(!may_as(&lab, who, here, &what), "{who} {what}");
            }
        }
        // What limits everybody.
        for verb in READS.into_iter().chain(WRITES) {
            assert!(!may(who, verb, "clustertoolzzconnections", here), "{who} {verb}");
        }
    }
}
