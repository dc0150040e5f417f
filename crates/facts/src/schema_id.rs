//! Names of the formats of documents.

/// Type of a document's field `schema`: the names of its format that this version reads.
#[macro_export]
macro_rules! schema_id {
    ($vis:vis $name:ident = $id:tt) => {
        /// Names of the format that this version reads.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        $vis enum $name {
            /// The first format.
            #[serde(rename = $id)]
            V1,
        }
    };
}
