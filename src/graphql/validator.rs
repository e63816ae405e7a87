//! Validation without execution, which async-graphql has no function for.

use std::sync::Arc;

use async_graphql::{
    Request, ServerError, ValidationResult,
    async_trait::async_trait,
    extensions::{Extension, ExtensionContext, ExtensionFactory, NextValidation},
};

use super::subgraph::ApiSchema;

/// A schema that validates and never executes.
pub struct Validator(ApiSchema);

impl Validator {
    /// `schema` must have been built with [`StopBeforeExecution`].
    pub fn new(schema: ApiSchema) -> Self {
        Self(schema)
    }

    /// Validates the document of a request.
    ///
    /// # Errors
    /// What is wrong with it.
    pub async fn validate(&self, request: Request) -> Result<(), Vec<ServerError>> {
        let errors = self.0.execute(request).await.errors;
        if errors.iter().any(|error| error.source::<Valid>().is_some()) { Ok(()) } else { Err(errors) }
    }
}

/// Ends a request that has been validated.
pub struct StopBeforeExecution;

/// What it ends with.
struct Valid;

impl ExtensionFactory for StopBeforeExecution {
    fn create(&self) -> Arc<dyn Extension> {
        Arc::new(Self)
    }
}

#[async_trait]
impl Extension for StopBeforeExecution {
    async fn validation(
        &self,
        ctx: &ExtensionContext<'_>,
        next: NextValidation<'_>,
    ) -> Result<ValidationResult, Vec<ServerError>> {
        next.run(ctx).await?;
        let mut valid = ServerError::new("valid", None);
        valid.source = Some(Arc::new(Valid));
        Err(vec![valid])
    }
}
