//! Enums whose variants have words: the names that events, documents and messages give them.

/// Declares an enum with a word for each variant, `as_str` for the word, and `ALL` in the order of declaration.
macro_rules! words {
    ($(#[$about:meta])* pub enum $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$about])*
        pub enum $name {
            $($(#[$doc])* $variant,)+
        }

        impl $name {
            /// All of them, in the order of declaration.
            pub const ALL: [$name; [$($word),+].len()] = [$($name::$variant),+];

            /// The word for it in events, documents and messages.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $($name::$variant => $word,)+
                }
            }
        }
    };
}
