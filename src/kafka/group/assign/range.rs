//! `range`: each topic by itself, neighbouring partitions together; the first members get one more.
//!
//! Members stand in the order of Java's: by instance id where both have one, those who have one first, else by
//! member id. So static members keep their partitions over a restart.

use std::cmp::Ordering;

use super::{Candidate, Counts, Shares};
use crate::kafka::cluster::TopicPartition;

pub(crate) fn assign(candidates: &[Candidate], counts: &Counts) -> Shares {
    let mut shares: Shares = vec![Vec::new(); candidates.len()];
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    order.sort_by(|a, b| compare(&candidates[*a], &candidates[*b]));
    for (topic, count) in counts {
        let takers: Vec<usize> =
            order.iter().copied().filter(|n| candidates[*n].subscription.topics.contains(topic)).collect();
        let mut first = 0;
        for (place, taker) in takers.iter().enumerate() {
            let size = split(*count, takers.len(), place);
            let some =
                (first..first + size).map(|partition| TopicPartition { topic: topic.clone(), partition });
            shares[*taker].extend(some);
            first += size;
        }
    }
    shares
}

/// How many of `count` the member at `place` gets.
fn split(count: i32, takers: usize, place: usize) -> i32 {
    let takers = i32::try_from(takers).unwrap_or(i32::MAX);
    let extra = usize::try_from(count % takers).is_ok_and(|rest| place < rest);
    count / takers + i32::from(extra)
}

fn compare(a: &Candidate, b: &Candidate) -> Ordering {
    match (&a.instance, &b.instance) {
        (Some(a), Some(b)) => a.cmp(b),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => a.member.cmp(&b.member),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{candidate, check_complete, counts, groups};
    use super::*;
    use proptest::prelude::*;

    fn numbers(share: &[TopicPartition]) -> Vec<i32> {
        share.iter().map(|of| of.partition).collect()
    }

    #[test]
    fn the_first_members_get_one_more() {
        let members = [candidate("c", &["a"], &[]), candidate("a", &["a"], &[]), candidate("b", &["a"], &[])];
        let shares = assign(&members, &counts(&[("a", 7)]));
        assert_eq!(numbers(&shares[1]), [0, 1, 2]);
        assert_eq!(numbers(&shares[2]), [3, 4]);
        assert_eq!(numbers(&shares[0]), [5, 6]);
    }

    #[test]
    fn static_members_stand_first_in_the_order_of_their_instances() {
        let mut members =
            [candidate("a", &["a"], &[]), candidate("b", &["a"], &[]), candidate("c", &["a"], &[])];
        members[1].instance = Some("2".into());
        members[2].instance = Some("1".into());
        let shares = assign(&members, &counts(&[("a", 3)]));
        assert_eq!([numbers(&shares[0]), numbers(&shares[1]), numbers(&shares[2])], [[2], [1], [0]]);
    }

    proptest! {
        #[test]
        fn every_partition_goes_to_exactly_one((members, counts) in groups()) {
            let shares = assign(&members, &counts);
            check_complete(&members, &counts, &shares, &[]);
            for topic in counts.keys() {
                let takers = members.iter().zip(&shares);
                let sizes = takers
                    .filter(|(member, _)| member.subscription.topics.contains(topic))
                    .map(|(_, share)| share.iter().filter(|of| of.topic == *topic).count());
                let sizes: Vec<usize> = sizes.collect();
                if let (Some(most), Some(least)) = (sizes.iter().max(), sizes.iter().min()) {
                    prop_assert!(most - least <= 1);
                }
            }
        }
    }
}
