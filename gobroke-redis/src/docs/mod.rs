//! Guides: what one has to know beyond the page of one item.

#[doc = include_str!("operating.md")]
pub mod operating {}

#[doc = include_str!("scaling.md")]
pub mod scaling {}

#[cfg(test)]
mod tests {
    use gobroke_core::cluster::ClusterStats;

    use crate::RedisStats;

    /// The names of a structure's fields.
    fn fields(of: &impl std::fmt::Debug) -> Vec<String> {
        let shown = format!("{of:#?}");
        let fields = shown
            .lines()
            .filter_map(|line| line.strip_prefix("    ")?.split_once(':'));
        fields.map(|(name, _)| name.to_owned()).collect()
    }

    #[test]
    fn the_page_on_operating_says_of_each_counter_what_is_normal_and_what_to_do_otherwise() {
        let page = include_str!("operating.md");
        let rows = page.lines().filter_map(|row| row.strip_prefix("| "));
        let values: Vec<&str> = rows
            .filter_map(|row| row.split_once(" | "))
            .flat_map(|(values, _)| values.split(", "))
            .collect();
        let core = fields(&ClusterStats::default());
        let own = fields(&RedisStats::default());
        assert!(core.contains(&"sent".to_owned()) && own.contains(&"sweeps".to_owned()));
        let core = core.into_iter().map(|name| format!("`{name}`"));
        let own = own.into_iter().map(|name| format!("`RedisStats::{name}`"));
        for name in core.chain(own) {
            assert!(values.contains(&&*name), "{name} is not on the page");
        }
    }
}
