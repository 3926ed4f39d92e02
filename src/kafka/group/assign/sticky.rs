//! `cooperative-sticky`: balanced over all topics, with as few moves as that takes.
//!
//! First everybody keeps what it has; what nobody has goes to whoever has least; then single partitions move from
//! those who have more to those who have less, as long as that evens out. At last the cooperative rule (KIP-429):
//! a partition that changes hands is given to nobody while another member says that it has it. That one learns
//! from its new share that it must let go, does so and joins again; the next round hands the partition over.
//!
//! Stricter than Java in one point: a claim of an older generation also holds a partition back for a round. Such
//! a member was gone for a while and may not know it yet.

use std::collections::{BTreeMap, HashMap};

use super::{Candidate, Counts, Shares};
use crate::kafka::cluster::TopicPartition;

pub(crate) fn assign(candidates: &[Candidate], counts: &Counts) -> Shares {
    let claims = Claims::of(candidates);
    let mut plan = Plan::new(candidates, counts);
    plan.keep(&claims);
    plan.give_rest();
    plan.even_out();
    let mut shares: Shares = vec![Vec::new(); candidates.len()];
    for (of, owner) in plan.owners {
        if let Some(owner) = owner
            && !claims.holds_back(&of, owner)
        {
            shares[owner].push(of);
        }
    }
    shares
}

/// Who says to have what.
struct Claims(HashMap<TopicPartition, Vec<(i32, usize)>>);

impl Claims {
    fn of(candidates: &[Candidate]) -> Self {
        let mut claims: HashMap<TopicPartition, Vec<(i32, usize)>> = HashMap::new();
        for (member, candidate) in candidates.iter().enumerate() {
            let subscription = &candidate.subscription;
            for of in &subscription.owned {
                claims.entry(of.clone()).or_default().push((subscription.generation, member));
            }
        }
        for claimants in claims.values_mut() {
            claimants.sort_by(|a, b| b.cmp(a));
            claimants.dedup();
        }
        Claims(claims)
    }

    /// The one of the newest generation. Two of the same generation cannot both be right: nobody has it then.
    fn owner(&self, of: &TopicPartition) -> Option<usize> {
        match self.0.get(of)?.as_slice() {
            [first, second, ..] if first.0 == second.0 => None,
            claimants => claimants.first().map(|claim| claim.1),
        }
    }

    /// Whether somebody else may still read what `member` is to get.
    fn holds_back(&self, of: &TopicPartition, member: usize) -> bool {
        self.owner(of) != Some(member)
            && self.0.get(of).is_some_and(|claimants| claimants.iter().any(|claim| claim.1 != member))
    }
}

/// Who gets what.
struct Plan<'a> {
    candidates: &'a [Candidate],
    owners: BTreeMap<TopicPartition, Option<usize>>,
    loads: Vec<usize>,
    /// By member id, so that the outcome does not depend on the order of joining.
    order: Vec<usize>,
}

impl<'a> Plan<'a> {
    fn new(candidates: &'a [Candidate], counts: &Counts) -> Self {
        let mut owners = BTreeMap::new();
        for (topic, count) in counts {
            owners.extend(
                (0..*count).map(|partition| (TopicPartition { topic: topic.clone(), partition }, None)),
            );
        }
        let mut order: Vec<usize> = (0..candidates.len()).collect();
        order.sort_by(|a, b| candidates[*a].member.cmp(&candidates[*b].member));
        Plan { candidates, owners, loads: vec![0; candidates.len()], order }
    }

    fn wants(&self, member: usize, of: &TopicPartition) -> bool {
        self.candidates[member].subscription.topics.contains(&of.topic)
    }

    fn keep(&mut self, claims: &Claims) {
        let kept: Vec<_> = self
            .owners
            .keys()
            .filter_map(|of| Some((of.clone(), claims.owner(of)?)))
            .filter(|(of, owner)| self.wants(*owner, of))
            .collect();
        for (of, owner) in kept {
            self.loads[owner] += 1;
            self.owners.insert(of, Some(owner));
        }
    }

    /// Those with the fewest takers first: they have the least choice.
    fn give_rest(&mut self) {
        let mut rest: Vec<_> =
            self.owners.iter().filter(|(_, owner)| owner.is_none()).map(|(of, _)| of.clone()).collect();
        rest.sort_by_cached_key(|of| {
            (0..self.candidates.len()).filter(|member| self.wants(*member, of)).count()
        });
        for of in rest {
            if let Some(taker) = self.least(&of) {
                self.loads[taker] += 1;
                self.owners.insert(of, Some(taker));
            }
        }
    }

    fn least(&self, of: &TopicPartition) -> Option<usize> {
        let takers = self.order.iter().copied().filter(|member| self.wants(*member, of));
        takers.min_by_key(|member| self.loads[*member])
    }

    /// Each move makes the sum of the squares of all loads smaller, so it ends. The fullest give first: else one
    /// in the middle would give to the least and get again from the fullest, which are two moves for one.
    fn even_out(&mut self) {
        while let Some((of, from, to)) = self.best_move() {
            self.loads[from] -= 1;
            self.loads[to] += 1;
            self.owners.insert(of, Some(to));
        }
    }

    fn best_move(&self) -> Option<(TopicPartition, usize, usize)> {
        let mut best: Option<(&TopicPartition, usize, usize)> = None;
        let mut least: HashMap<&str, Option<usize>> = HashMap::new();
        for (of, owner) in &self.owners {
            let Some(from) = *owner else { continue };
            let Some(to) = *least.entry(&of.topic).or_insert_with(|| self.least(of)) else { continue };
            let gain = self.loads[from].saturating_sub(self.loads[to]);
            if gain > 1 && best.is_none_or(|(_, from, to)| gain > self.loads[from] - self.loads[to]) {
                best = Some((of, from, to));
            }
        }
        best.map(|(of, from, to)| (of.clone(), from, to))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{candidate, check_complete, counts, groups, topic};
    use super::*;
    use proptest::prelude::*;

    /// What the members say in the next round.
    fn own(candidates: &mut [Candidate], shares: &Shares, generation: i32) {
        for (candidate, share) in candidates.iter_mut().zip(shares) {
            candidate.subscription.owned = share.clone();
            candidate.subscription.generation = generation;
        }
    }

    /// Joins until nothing is held back any more.
    fn settle(candidates: &mut [Candidate], counts: &Counts, generation: &mut i32) -> Shares {
        for round in 0.. {
            assert!(round < 4, "it does not settle");
            let owned: Vec<_> =
                candidates.iter().map(|candidate| candidate.subscription.owned.clone()).collect();
            let shares = assign(candidates, counts);
            check_cooperative(candidates, &shares);
            own(candidates, &shares, *generation);
            *generation += 1;
            // Whoever lost something joins again.
            if owned.iter().zip(&shares).all(|(owned, share)| owned.iter().all(|of| share.contains(of))) {
                return shares;
            }
        }
        unreachable!()
    }

    /// What somebody else says to have is not given to anyone new.
    fn check_cooperative(candidates: &[Candidate], shares: &Shares) {
        for (member, share) in shares.iter().enumerate() {
            for of in share.iter().filter(|of| !candidates[member].subscription.owned.contains(of)) {
                for other in candidates {
                    assert!(!other.subscription.owned.contains(of), "{of} is handed over too early");
                }
            }
        }
    }

    fn check_balance(shares: &Shares) {
        let sizes = shares.iter().map(Vec::len);
        assert!(sizes.clone().max().unwrap() - sizes.min().unwrap() <= 1, "{shares:?}");
    }

    #[test]
    fn a_newcomer_gets_nothing_before_the_others_let_go() {
        let all: Vec<_> = (0..4).map(|n| topic("a", n)).collect();
        let counts = counts(&[("a", 4)]);
        let mut members = [candidate("x", &["a"], &all), candidate("y", &["a"], &[])];
        let shares = assign(&members, &counts);
        assert_eq!((shares[0].len(), shares[1].len()), (2, 0));
        own(&mut members, &shares, 2);
        let shares = assign(&members, &counts);
        assert_eq!((shares[0].len(), shares[1].len()), (2, 2));
        assert_eq!(shares[0], members[0].subscription.owned);
    }

    #[test]
    fn of_two_claims_the_newer_generation_holds_and_of_equal_ones_none() {
        let counts = counts(&[("a", 1)]);
        let mut members =
            [candidate("x", &["a"], &[topic("a", 0)]), candidate("y", &["a"], &[topic("a", 0)])];
        assert_eq!(assign(&members, &counts), [vec![], vec![]]);
        members[1].subscription.generation = 2;
        assert_eq!(assign(&members, &counts), [vec![], vec![topic("a", 0)]]);
        // The owner does not want it any more: the old claim still holds it back.
        members[1].subscription.topics.clear();
        assert_eq!(assign(&members, &counts), [vec![], vec![]]);
    }

    #[test]
    fn what_is_unknown_or_no_longer_wanted_is_not_kept() {
        let members = [candidate("x", &["a"], &[topic("b", 0), topic("a", 7)])];
        assert_eq!(assign(&members, &counts(&[("a", 1), ("b", 1)])), [vec![topic("a", 0)]]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn every_partition_goes_to_exactly_one_and_no_move_would_even_out((mut members, counts) in groups()) {
            let shares = settle(&mut members, &counts, &mut 1);
            check_complete(&members, &counts, &shares, &[]);
            for (from, share) in shares.iter().enumerate() {
                for of in share {
                    for (to, other) in shares.iter().enumerate() {
                        let wanted = members[to].subscription.topics.contains(&of.topic);
                        prop_assert!(!wanted || share.len() <= other.len() + 1, "{} from {} to {}", of, from, to);
                    }
                }
            }
        }

        #[test]
        fn members_come_and_go_and_little_moves(
            sizes in (0i32..20, 0i32..20), changes in proptest::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 1..8)
        ) {
            let counts = counts(&[("a", sizes.0), ("b", sizes.1)]);
            let mut members = vec![candidate("m0", &["a", "b"], &[])];
            let (mut generation, mut next) = (1, 1);
            settle(&mut members, &counts, &mut generation);
            for (joins, which) in changes {
                let before: HashMap<String, Vec<TopicPartition>> = members
                    .iter()
                    .map(|member| (member.member.clone(), member.subscription.owned.clone()))
                    .collect();
                let joins = joins || members.len() == 1;
                if joins {
                    members.insert(which.index(members.len() + 1), candidate(&format!("m{next}"), &["a", "b"], &[]));
                    next += 1;
                } else {
                    members.remove(which.index(members.len()));
                }
                let shares = settle(&mut members, &counts, &mut generation);
                check_complete(&members, &counts, &shares, &[]);
                check_balance(&shares);
                for (member, share) in members.iter().zip(&shares) {
                    let Some(had) = before.get(&member.member) else { continue };
                    // Who stays loses nothing when another leaves, and gets nothing when another joins.
                    let lost = had.iter().filter(|of| !share.contains(of)).count();
                    let got = share.iter().filter(|of| !had.contains(of)).count();
                    prop_assert!(lost == 0 || got == 0, "moved to and fro");
                    let wrong = if joins { got } else { lost };
                    prop_assert!(wrong == 0, "{} moved without need", wrong);
                }
            }
        }
    }
}
